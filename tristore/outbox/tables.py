"""The tables of the outbox: what PostgreSQL transactions owe to other stores."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Float, Identity, Index, String, false, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import OwnTable

AGGREGATE_LENGTH = 64
TRACEPARENT_LENGTH = 55


class OutboxStream(OwnTable):
    """The effects of one aggregate in one queue. Whoever adds effects locks this row, so that their ids follow the
    order of the commits. Whoever applies them leases it."""

    __tablename__ = "outbox_streams"

    aggregate: Mapped[str] = mapped_column(String(AGGREGATE_LENGTH), primary_key=True)
    store: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The queue. Most queues have the name of a store."""
    pending: Mapped[int]
    """How many effects wait. This row is locked anyway, so it knows whether the stream is empty, whatever the
    snapshot."""
    due_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    lease_token: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """How often in a row the first effect has failed by its own fault."""
    refusals: Mapped[int] = mapped_column(server_default=text("0"))
    """How often in a row a store has refused the first effect although its probe passed, or no process knew it."""
    waits_for: Mapped[str | None] = mapped_column(String(16))
    """The store that refused. When it resumes, this stream is due. Or `OTHER_RELEASE`: then it is due when a process
    starts."""
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
    aggregate: Mapped[str] = mapped_column(String(AGGREGATE_LENGTH))
    store: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, object]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delay: Mapped[float] = mapped_column(Float(53), server_default=text("0"))
    due_at: Mapped[datetime | None]
    """When an effect with a delay may be applied. Set once it is the first of its stream."""
    traceparent: Mapped[str | None] = mapped_column(String(TRACEPARENT_LENGTH))
    """Names the request that owes it, as W3C Trace Context does, where that was traced."""

    __table_args__ = (Index("ix_outbox_stream", "aggregate", "store", "id"),)
