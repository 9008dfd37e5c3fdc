"""How sagas ride on the outbox."""

import uuid
from typing import ClassVar, Protocol

from tristore.outbox.effects import Later
from tristore.saga.tables import Direction


class GoOn(Protocol):
    """What continues sagas."""

    async def go_on(self, saga_id: uuid.UUID, direction: Direction) -> None: ...


class HasSagas(Protocol):
    """What the targets of the outbox must have for `ContinueSaga`."""

    @property
    def sagas(self) -> GoOn: ...


class ContinueSaga(Later):
    """Each direction has a stream of its own, so that undoing has all its attempts before it, and may wait."""

    store: ClassVar = "sagas"
    saga_id: uuid.UUID
    undo: bool = False
    after_seconds: float = 0

    @property
    def aggregate(self) -> str:
        return f"saga:{self.saga_id}:undo" if self.undo else f"saga:{self.saga_id}"

    async def apply(self, to: HasSagas) -> None:
        await to.sagas.go_on(self.saga_id, "compensating" if self.undo else "running")
