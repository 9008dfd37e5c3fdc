"""Sign-in sessions: the table and what the API takes and gives. A token is shown once and never stored."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from tristore import identity
from tristore.models import Model, Storable, Table, example, storable


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


def _storable(password: SecretStr) -> SecretStr:
    storable(password.get_secret_value())
    return password


def _still_bounded(password: SecretStr) -> SecretStr:
    if not SHORTEST <= len(identity.password(password.get_secret_value())) <= LONGEST:
        raise ValueError(f"must have {SHORTEST} to {LONGEST} characters, also in Unicode's form NFKC")
    return password


SHORTEST, LONGEST = 8, 128
Password = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST), AfterValidator(_storable)]
NewPassword = Annotated[
    SecretStr,
    Field(min_length=SHORTEST, max_length=LONGEST),
    AfterValidator(_storable),
    AfterValidator(_still_bounded),
]


class SignIn(BaseModel):
    """The OAuth2 password form; its other fields are ignored."""

    model_config = ConfigDict(extra="ignore") | example({"username": "ana", "password": "correct horse 9"})

    username: Annotated[str, Storable, AfterValidator(identity.account_name)] = Field(
        min_length=1, max_length=254, description="username or email"
    )
    password: Password


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
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool = Field(description="whether this request came with it")


class SessionList(BaseModel):
    items: list[SessionInfo]


class SignedIn(BaseModel):
    """Who a token belongs to. This is what Redis keeps of a session: no role, no rights."""

    session_id: uuid.UUID
    user_id: uuid.UUID
    profile: bytes | None = Field(None, exclude=True, repr=False)
    """The user's profile, where the same look into PostgreSQL has found it."""
