"""Broken variants of orders: a step or its compensation at the wrong time, or too often."""

import uuid
from datetime import datetime, timedelta

from repositories import seat_repo
from repositories.seat_repo import SeatRepository
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.effects import ContinueSaga
from tristore.saga.engine import Sagas
from tristore.saga.tables import Progress


class StepRepeated(SeatRepository):
    """Takes seats as often as it is asked to."""

    async def change(
        self, course_id: uuid.UUID, marker: str, quantity: int, until: datetime, capacity: int | None = None
    ) -> seat_repo.Outcome:
        async with self._mongodb.operation() as database:
            await database.seats.update_one({"_id": str(course_id)}, {"$pull": {"markers": {"id": marker}}})
        return await super().change(course_id, marker, quantity, until, capacity)


SOON = 0.01
"""Without any delay the recording process would take the lease, and deliver nothing."""


class UndoesEarly(Sagas):
    """Compensates at once, and not only when no step can have an effect any more."""

    async def _turn_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> bool:
        turned = await super()._turn_round(uow, saga, reason)
        uow.effects[:] = [
            effect.model_copy(update={"after_seconds": SOON}) if isinstance(effect, ContinueSaga) else effect
            for effect in uow.effects
        ]
        return turned


class GivesBackEarly(SeatRepository):
    """Takes the deadline of what it undoes for past."""

    async def undo(self, course_id: uuid.UUID, marker: str, until: datetime) -> bool:
        return await super().undo(course_id, marker, until - timedelta(days=1))
