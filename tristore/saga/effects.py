"""The effect by which the outbox makes sagas go on."""

import uuid
from typing import ClassVar, Protocol

from tristore.outbox.effects import Later
from tristore.saga.tables import Direction

QUEUE = "sagas"
"""The queue of sagas. It belongs to no store: each step waits for the store that it needs."""


class GoOn(Protocol):
    """What continues sagas."""

    async def go_on(self, saga_id: uuid.UUID, direction: Direction) -> None: ...


class HasSagas(Protocol):
    """What the targets of the outbox must have for `ContinueSaga`."""

    @property
    def sagas(self) -> GoOn: ...


class ContinueSaga(Later):
    """Each direction has a stream of its own. So undoing has all its attempts before it, and it may wait."""

    queue: ClassVar = QUEUE
    saga_id: uuid.UUID
    undo: bool = False
    after_seconds: float = 0

    @property
    def aggregate(self) -> str:
        return f"saga:{self.saga_id}:undo" if self.undo else f"saga:{self.saga_id}"

    async def apply(self, to: HasSagas) -> None:
        await to.sagas.go_on(self.saga_id, "compensating" if self.undo else "running")
