"""What an order owes to MongoDB, and a course that can be ordered."""

import uuid
from datetime import datetime
from typing import ClassVar

from repositories.seat_repo import SeatRepository
from services.effects import Targets
from tristore.outbox.effects import Effect, Later, NotYet


class OpenSeats(Effect):
    """Nobody can order a new course before this."""

    queue: ClassVar = "mongodb"
    course_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"course:{self.course_id}"

    async def apply(self, to: Targets) -> None:
        await SeatRepository(to.mongodb).open(self.course_id)


class ForgetMarker(Later):
    """The marker of seats that were taken or given back. Until it goes, this does not happen twice."""

    queue: ClassVar = "mongodb"
    course_id: uuid.UUID
    marker: str
    until: datetime

    @property
    def aggregate(self) -> str:
        return f"marker:{self.marker}"

    async def apply(self, to: Targets) -> None:
        if not await SeatRepository(to.mongodb).forget(self.course_id, self.marker, self.until):
            raise NotYet
