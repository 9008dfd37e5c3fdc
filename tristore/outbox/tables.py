"""The outbox: what a PostgreSQL transaction owes to the other stores, as tables and as the base of all effects."""

import uuid
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, CheckConstraint, Float, Identity, Index, String, false, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import OwnTable

TargetStore = Literal["redis", "mongodb", "sagas"]
"""Whose queue an effect waits in. "sagas" is no store: each step of a saga waits for the store that it needs."""
TARGETS: tuple[TargetStore, ...] = get_args(TargetStore)


class OutboxStream(OwnTable):
    """The queue of one aggregate and store. Its row is locked by whoever adds effects, so their ids follow the order
    of the commits, and leased by whoever applies them."""

    __tablename__ = "outbox_streams"

    aggregate: Mapped[str] = mapped_column(String(64), primary_key=True)
    store: Mapped[str] = mapped_column(String(16), primary_key=True)
    pending: Mapped[int]
    """How many effects wait. The row that is locked anyway knows when the stream is empty, whatever the snapshot."""
    due_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    lease_token: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Failures of the first effect, by its own fault, in a row."""
    refusals: Mapped[int] = mapped_column(server_default=text("0"))
    """How often in a row a store has refused the first effect, though its probe passed."""
    waits_for: Mapped[str | None] = mapped_column(String(16))
    """The store that refused: when it resumes, this is due."""
    dead: Mapped[bool] = mapped_column(server_default=false())
    last_error: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("pending >= 0", name="pending"),
        Index("ix_outbox_streams_due", "store", "due_at", postgresql_where=text("pending > 0 AND NOT dead")),
        Index("ix_outbox_streams_empty", "due_at", postgresql_where=text("pending = 0")),
        # These hold only what fails, so that counting it costs nothing behind a million rows that merely wait.
        Index("ix_outbox_streams_dead", "store", postgresql_where=text("dead")),
        Index("ix_outbox_streams_attempts", "attempts", postgresql_where=text("attempts > 0")),
        Index("ix_outbox_streams_refusals", "refusals", postgresql_where=text("refusals > 0")),
        Index("ix_outbox_streams_waits_for", "waits_for", postgresql_where=text("waits_for IS NOT NULL")),
    )


class OutboxEffect(OwnTable):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    aggregate: Mapped[str] = mapped_column(String(64))
    store: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delay: Mapped[float] = mapped_column(Float(53), server_default=text("0"))
    due_at: Mapped[datetime | None]
    """Of one with a delay, once it is the first of its stream."""

    __table_args__ = (Index("ix_outbox_stream", "aggregate", "store", "id"),)
