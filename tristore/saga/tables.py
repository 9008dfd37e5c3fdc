"""Sagas: how far each of them is, as a row in PostgreSQL."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import CheckConstraint, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import OwnTable

Direction = Literal["running", "done", "compensating", "compensated"]


class SagaRow(OwnTable):
    __tablename__ = "sagas"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """Of what it is about, such as the order."""
    name: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), server_default="running")
    step: Mapped[int] = mapped_column(server_default="0")
    """How many steps are done; while compensating, how many are left to undo."""
    deadline: Mapped[datetime]
    reason: Mapped[str | None] = mapped_column(String(32))
    """Why it was turned round."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("state IN ('running', 'done', 'compensating', 'compensated')", name="state"),
        Index("ix_sagas_open", "created_at", postgresql_where=text("state IN ('running', 'compensating')")),
    )


@dataclass(frozen=True)
class SagaState:
    """A saga's row as it was read: whoever moves it on does so only from there."""

    id: uuid.UUID
    name: str
    state: Direction
    step: int
    deadline: datetime
    """After which nothing that was sent to another store on its behalf takes effect there any more."""
    seconds_left: float
    """Until the deadline, by PostgreSQL's clock."""
    reason: str | None
