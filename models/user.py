"""Users and their profiles: tables in PostgreSQL and what the API takes and gives."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, StrictBool, StringConstraints
from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import FORMAT, LEVELS, CefrLevel, Language
from tristore.fields import Email, NewPassword
from tristore.models import Model, Moment, OneLine, Page, PartialUpdate, Storable, Table, at_most, example

Role = Literal["learner", "admin"]
TAG = f"{FORMAT}."
"""What stands before the version in a profile's tag."""
PREFIXES = "text_pattern_ops"
RESERVED = frozenset("admin administrator api chatlingo help info me moderator null root staff support system".split())
"""Who has one of these names could pass for the service. Dots, dashes and underscores do not make another name."""


def _free(username: str) -> str:
    name = "".join(filter(str.isalnum, username)).lower()
    if not name or name in RESERVED:
        raise ValueError("is reserved, choose another")
    return username


# No validator before a pattern: the API's document would lose it.
Username = Annotated[
    str,
    StringConstraints(min_length=3, max_length=32, pattern=r"^ *[A-Za-z0-9_.-]+ *$", strip_whitespace=True),
    at_most(32),
    AfterValidator(_free),
]
DisplayName = Annotated[
    str, StringConstraints(min_length=1, max_length=80, strip_whitespace=True), at_most(80), OneLine
]
Bio = Annotated[str, StringConstraints(max_length=1000), Storable]


class User(Table):
    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    username: Mapped[str | None] = mapped_column(String(32))
    email: Mapped[str | None] = mapped_column(String(254))  # null while none is proved: see REGISTRATION_PRIVACY
    email_verified_at: Mapped[datetime | None]
    password_hash: Mapped[str | None] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16), server_default="learner")
    language_preference: Mapped[str] = mapped_column(String(12), server_default="en")
    cefr_level: Mapped[str] = mapped_column(String(2), server_default="A1")
    version: Mapped[int] = mapped_column(server_default="1")
    """Grows by one with each change of the user or the profile: the cache never replaces a newer by an older one."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]
    """Until it is taken back, nobody signs in."""
    erased_at: Mapped[datetime | None]
    """Of an erased user nothing is left but the id, for what must be kept and refers to it."""

    __table_args__ = (
        Index("uq_users_username_lower", func.lower(username), unique=True),
        Index("uq_users_email_lower", func.lower(email), unique=True),
        Index("ix_users_username_prefix", func.lower(username).label("lower"), postgresql_ops={"lower": PREFIXES}),
        Index("ix_users_email_prefix", "email", postgresql_ops={"email": PREFIXES}),
        CheckConstraint(
            "num_nonnulls(username, password_hash) = 2 * num_nulls(erased_at) AND num_nonnulls(email, erased_at) < 2",
            name="erased",
        ),
        CheckConstraint("role IN ('learner', 'admin')", name="role"),
        CheckConstraint(f"cefr_level IN ({LEVELS})", name="cefr_level"),
    )


class Profile(Table):
    __tablename__ = "profiles"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    display_name: Mapped[str] = mapped_column(String(80))
    bio: Mapped[str] = mapped_column(String(1000), server_default="")


class Registration(Model):
    """Body of POST /users/register."""

    model_config = example(
        {"username": "ana", "email": "ana@example.com", "password": "correct horse 9", "cefr_level": "B1"}
    )

    username: Username
    email: Email
    password: NewPassword
    language_preference: Language = "en"
    cefr_level: CefrLevel = "A1"


class Registered(BaseModel):
    user_id: uuid.UUID
    welcome_conversation_id: uuid.UUID


class ProfileUpdate(PartialUpdate):
    """Body of PATCH /users/me: what is not sent stays as it is."""

    model_config = example({"level": "B2", "display_name": "Ana"})

    username: Username = ""
    email: Email = ""
    language: Language = Field("", validation_alias=AliasChoices("language", "language_preference"))
    level: CefrLevel = Field("A1", validation_alias=AliasChoices("level", "cefr_level"))
    display_name: DisplayName = ""
    bio: Bio = ""


class RoleUpdate(Model):
    """Body of PUT /users/{user_id}/role."""

    model_config = example({"role": "admin"})

    role: Role


class DisabledUpdate(Model):
    """Body of PUT /users/{user_id}/disabled."""

    model_config = example({"disabled": False})

    disabled: StrictBool


class PublicProfile(BaseModel):
    """What anyone may see of a user."""

    id: uuid.UUID
    username: str
    display_name: str
    bio: str
    language: str
    level: CefrLevel
    created_at: Moment


class FullProfile(PublicProfile):
    """What the user sees, and an admin."""

    email: str
    email_verified: bool
    role: Role
    disabled: bool
    version: int
    updated_at: Moment


class UserPage(Page[FullProfile]):
    pass


def tag_of(profile: bytes) -> str:
    """The tag of a FullProfile, from its JSON without parsing it. No text in there looks like the name: its quotes
    would be escaped."""
    return TAG + profile.rpartition(b',"version":')[2].partition(b",")[0].decode()


@dataclass(frozen=True)
class Caller:
    """Who sends the request."""

    id: uuid.UUID
    role: Role
    email_verified: bool
    created_at: datetime
