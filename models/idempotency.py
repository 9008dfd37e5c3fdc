"""The table of the idempotency keys that users have sent."""

import uuid

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from tristore.idempotency import KeyTable


class IdempotencyRecord(KeyTable):
    __tablename__ = "idempotency_keys"

    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))

    __table_args__ = (
        Index("ix_idempotency_keys_user_id", "user_id"),
        Index("ix_idempotency_keys_created_at", "created_at"),
    )
