"""Idempotency keys: what a client sends so that a repeated request is not a second one."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import ForeignKey, Index, LargeBinary, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import Table


class IdempotencyRecord(Table):
    """The answer to a request that succeeded, written in the transaction that made it so."""

    __tablename__ = "idempotency_keys"

    scope: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    answer: Mapped[dict[str, object]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_idempotency_keys_user_id", "user_id"),
        Index("ix_idempotency_keys_created_at", "created_at"),
    )


@dataclass(frozen=True)
class IdempotencyKey:
    """A key as the client sent it. It belongs to a user (or to nobody yet) and a route: the scope."""

    scope: str
    key: str


def fingerprint(body: BaseModel) -> bytes:
    """Tells one body from another. Secrets count as equal: pydantic masks them, and a fast hash of one must not be
    stored."""
    return hashlib.sha256(body.model_dump_json().encode()).digest()
