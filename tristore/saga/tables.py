"""How far each saga is, as a row in PostgreSQL."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import CheckConstraint, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import OwnTable
from tristore.outbox.tables import TRACEPARENT_LENGTH

State = Literal["running", "done", "compensating", "compensated"]
Direction = Literal["running", "compensating"]
"""The states of a saga that goes on: to its end, or back to its beginning."""


class SagaRow(OwnTable):
    __tablename__ = "sagas"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """The id of what the saga is about."""
    name: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), server_default="running")
    step: Mapped[int] = mapped_column(server_default="0")
    """How many steps are done. While compensating: how many are left to undo."""
    deadline: Mapped[datetime]
    reason: Mapped[str | None] = mapped_column(String(32))
    """Why it was turned round."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    traceparent: Mapped[str | None] = mapped_column(String(TRACEPARENT_LENGTH))
    """Names the request that has begun it, as in the outbox."""

    __table_args__ = (
        CheckConstraint("state IN ('running', 'done', 'compensating', 'compensated')", name="state"),
        Index("ix_sagas_open", "created_at", postgresql_where=text("state IN ('running', 'compensating')")),
    )


@dataclass(frozen=True)
class Progress:
    """How far a saga was when its row was read. Whoever moves the saga moves it only from there."""

    id: uuid.UUID
    name: str
    state: State
    step: int
    deadline: datetime
    """After it, nothing that was sent to another store for this saga takes effect there any more."""
    seconds_left: float
    """Seconds until the deadline, by PostgreSQL's clock."""
    reason: str | None
    traceparent: str | None


@dataclass(frozen=True)
class Unfinished(Progress):
    """The same, with the state of the effect that continues the saga. There may be none: then all of it is None."""

    created_at: datetime
    """When the saga began."""
    attempts: int | None
    last_error: str | None
    dead: bool | None
    due_at: datetime | None
