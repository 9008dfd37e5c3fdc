"""Sign-in sessions: the table and what the API gives. What it takes is in tristore/forms.py."""

import uuid
from datetime import datetime

from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey, Index, LargeBinary, String, func
from sqlalchemy.orm import Mapped, mapped_column

from tristore.models import Moment, Table


class Session(Table):
    __tablename__ = "sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the token. The token is 256 random bits, so nothing slower is needed."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    confirmed_at: Mapped[datetime | None]
    """When the password was last shown since the sign-in."""
    device: Mapped[str] = mapped_column(String(80), server_default="")
    client: Mapped[str] = mapped_column(String(200), server_default="")

    __table_args__ = (
        Index("uq_sessions_token_hash", "token_hash", unique=True),
        Index("ix_sessions_user_id", "user_id"),
    )


class SessionInfo(BaseModel):
    id: uuid.UUID
    created_at: Moment
    last_seen_at: Moment
    expires_at: Moment
    device: str = Field(description="as the sign-in named it")
    client: str = Field(description="as its `User-Agent` named it")
    current: bool = Field(description="whether this request came with it")


class SessionList(BaseModel):
    items: list[SessionInfo]


class SignedIn(BaseModel):
    """Who a token belongs to. This is what Redis keeps of a session: no role, no rights."""

    session_id: uuid.UUID
    user_id: uuid.UUID
    profile: bytes | None = Field(None, exclude=True, repr=False)
    """The user's profile, where the same look into PostgreSQL has found it."""
