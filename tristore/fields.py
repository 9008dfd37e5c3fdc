"""Types of fields that clients send. Each has its bounds, also in the API's document."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, WithJsonSchema

from tristore import identity
from tristore.models import Moment, Number, Storable, storable

LONGEST_EMAIL = 254
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 128


EntryNumber = Annotated[int, Field(ge=0, le=2**53 - 1), Number]
"""Of an entry in a numbered list, or zero for what comes before the first. Many JSON parsers blur larger integers."""


TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _time(value: object) -> object:
    if (isinstance(value, str) and TIME.fullmatch(value)) or (isinstance(value, datetime) and value.tzinfo):
        return value
    raise ValueError("must be a time with its offset from UTC, such as 2026-11-28T07:56:39Z (RFC 3339)")


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # stores and answers have it in UTC
        raise ValueError("must be in the years 1 to 9999 of UTC") from None


Instant = Annotated[Moment, BeforeValidator(_time), AfterValidator(_in_utc)]
"""A time that a client sends, in UTC. Of itself pydantic also takes numbers, dates and times of no zone."""


def _email(text: str) -> str:
    address = identity.email_address(storable(text))
    if len(address) > LONGEST_EMAIL:
        raise ValueError(f"must have at most {LONGEST_EMAIL} characters, also in lower case")
    return address


def _storable(password: SecretStr) -> SecretStr:
    storable(password.get_secret_value())
    return password


def _still_bounded(password: SecretStr) -> SecretStr:
    if not SHORTEST_PASSWORD <= len(identity.password(password.get_secret_value())) <= LONGEST_PASSWORD:
        raise ValueError(f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, also in Unicode's form NFKC")
    return password


Email = Annotated[
    str,
    StringConstraints(max_length=LONGEST_EMAIL),
    AfterValidator(_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": LONGEST_EMAIL}),
]
"""In its one form: see identity.email_address."""

AccountName = Annotated[
    str, Field(min_length=1, max_length=LONGEST_EMAIL), Storable, AfterValidator(identity.account_name)
]
"""A username or an email address, as somebody types it to sign in."""

Password = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_PASSWORD), AfterValidator(_storable)]
NewPassword = Annotated[
    SecretStr,
    Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD),
    AfterValidator(_storable),
    AfterValidator(_still_bounded),
]
"""NIST SP 800-63B (5.1.1.2): at least 8 characters, counted in the form that is hashed."""
