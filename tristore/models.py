"""What all tables and API models share."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, Protocol, Self, TypeVar

import uuid_utils.compat
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, to_json
from sqlalchemy import DateTime, MetaData
from sqlalchemy.orm import DeclarativeBase

from tristore.identity import shown

INT64 = 2**63 - 1


NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """Base of the product's tables. The names of constraints are fixed, so that a migration can drop what it made."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(timezone=True)}


class OwnTable(Table):
    """Base of the machinery's own tables. They are apart from the product's, and so are their migrations."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING)


MOST_FIELDS = 100


class Model(BaseModel):
    """Base of what clients send: unknown fields are refused, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: object) -> object:
        # An error for each of 100,000 would stop the event loop for a second.
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"must not have more than {MOST_FIELDS} fields")
        return given


class HasId(Protocol):
    @property
    def id(self) -> uuid.UUID: ...


class HasNumber(Protocol):
    @property
    def seq(self) -> int: ...


Item = TypeVar("Item")
Identified = TypeVar("Identified", bound=HasId)
Numbered = TypeVar("Numbered", bound=HasNumber)


class Page(BaseModel, Generic[Item]):
    """A part of a list, newest first. The cursor is the id of its last item, so pages neither miss nor repeat any."""

    items: list[Item]
    next_cursor: uuid.UUID | None = Field(description="`cursor` of the next page, null on the last")


def cursor_page(found: Sequence[Identified], limit: int) -> "Page[Identified]":
    """The page of up to `limit` items, made of one item more: that one tells whether there is a next page."""
    items = list(found[:limit])  # the annotation is quoted: pydantic would look for a schema of HasId
    return Page(items=items, next_cursor=items[-1].id if len(found) > limit else None)


class NumberedPage(BaseModel, Generic[Item]):
    """A part of a list whose items have numbers, in their order."""

    items: list[Item]
    next: int | None = Field(description="`after_seq` (or `before_seq`) of the next page, null on the last")


MOST_OF_A_PAGE, FEW = 2**20, 20
"""Bytes of its JSON. So few items make a page whatever they have."""


def fitting(items: Sequence[Numbered], *, forward: bool = False) -> list[Numbered]:
    """As many as fit into a page: of the last ones, or of the first ones."""
    if len(items) <= FEW:
        return list(items)
    room, fit = MOST_OF_A_PAGE, 0
    for item in items if forward else reversed(items):
        room -= len(to_json(item))
        if room < 0 < fit:
            break
        fit += 1
    return list(items[:fit] if forward else items[len(items) - fit :])


def numbered_page(found: Sequence[Numbered], limit: int, *, forward: bool) -> "NumberedPage[Numbered]":
    """The page of up to `limit` items that fit, made of one item more: the one that comes last when one reads in this
    direction."""
    items = fitting(found[:limit] if forward else found[-limit:], forward=forward)
    is_last = len(items) == len(found)
    return NumberedPage(items=items, next=None if is_last else items[-1 if forward else 0].seq)


class PartialUpdate(Model):
    """Base of changes. The defaults of its fields stand for "not sent" and are never values."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"send at least one of {', '.join(type(self).model_fields)}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        reference = handler(schema)
        document = handler.resolve_ref_schema(reference)
        for field in document["properties"].values():
            field.pop("default", None)
        document["minProperties"] = 1
        return reference

    def sent(self) -> dict[str, object]:
        """Only the fields that the client sent."""
        return self.model_dump(exclude_unset=True)


def example(values: JsonDict) -> ConfigDict:
    """What the API's document shows, and its page sends, as an example of a body."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def storable(text: str) -> str:
    """Refuse what one of the stores cannot hold. Raises ValueError."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode without lone surrogates") from None
    return text


# Put it after the constraints: before them it would make pydantic check the length first, and strip then.
Storable = AfterValidator(storable)
OneLine = AfterValidator(lambda text: shown(storable(text)))


def at_most(characters: int) -> BeforeValidator:
    """Counts before white space is stripped: the API's document tells how long a text may be as it is sent."""

    def check(value: object) -> object:
        if isinstance(value, str) and len(value) > characters:
            raise PydanticKnownError("string_too_long", {"max_length": characters})
        return value

    return BeforeValidator(check)


def is_number(value: object) -> object:
    """Refuse what pydantic would make a number of: text, true and false. 20.0 is one: JSON has no integers of its own.
    Raises ValueError."""
    if type(value) in {int, float}:
        return value
    raise ValueError("must be a number")


Number = BeforeValidator(is_number)


def _written(time: datetime) -> str:
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


Moment = Annotated[
    datetime,
    PlainSerializer(_written, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-28T07:56:39.000000Z"]}),
]
"""A time, written with six digits of a second, always: pydantic leaves them out when they are zero, which clients with
one fixed pattern cannot read."""


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): sorts by creation time, to the millisecond."""
    return uuid_utils.compat.uuid7()


def now() -> datetime:
    """The present time in UTC, cut to milliseconds, which is what MongoDB keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def check_json(value: object, depth: int = 6) -> object:
    """Refuse free-form JSON that MongoDB cannot hold or a client could not read back. Raises ValueError."""
    if depth == 0:
        raise ValueError("must not be nested deeper than 6 levels")
    match value:
        case str():
            storable(value)
        case bool() | None:
            pass
        case int():
            if not -INT64 - 1 <= value <= INT64:
                raise ValueError("integers must fit in 64 bits")
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise ValueError("numbers must be finite")
        case list():
            for item in value:
                check_json(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not storable(key) or key.startswith("$") or "." in key:
                    raise ValueError("keys must not be empty, start with $ or contain a dot")
                check_json(item, depth - 1)
    return value
