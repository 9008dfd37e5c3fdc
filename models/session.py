"""Sign-in sessions: the table and what the API takes and gives. A token is shown once and never stored."""

import uuid
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from tristore.fields import AccountName, NewPassword, Password
from tristore.models import Model, Moment, Table, example


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

    __table_args__ = (
        Index("uq_sessions_token_hash", "token_hash", unique=True),
        Index("ix_sessions_user_id", "user_id"),
    )


class SignIn(BaseModel):
    """The OAuth2 password form; its other fields are ignored."""

    model_config = ConfigDict(extra="ignore") | example({"username": "ana", "password": "correct horse 9"})

    username: AccountName = Field(description="username or email")
    password: Password
    grant_type: Literal["password"] = "password"


class PasswordChange(Model):
    """Body of POST /users/me/password."""

    model_config = example({"current_password": "correct horse 9", "new_password": "battery staple 7"})

    current_password: Password
    new_password: NewPassword


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - not a password
    expires_in: int = Field(description="seconds until it ends at the latest")


class SessionInfo(BaseModel):
    id: uuid.UUID
    created_at: Moment
    last_seen_at: Moment
    expires_at: Moment
    current: bool = Field(description="whether this request came with it")


class SessionList(BaseModel):
    items: list[SessionInfo]


class SignedIn(BaseModel):
    """Who a token belongs to. This is what Redis keeps of a session: no role, no rights."""

    session_id: uuid.UUID
    user_id: uuid.UUID
    profile: bytes | None = Field(None, exclude=True, repr=False)
    """The user's profile, where the same look into PostgreSQL has found it."""
