"""Parameters that many routes have."""

import re
from typing import Annotated

from fastapi import Header, Query
from pydantic import BeforeValidator

from tristore.models import INT64


def in_digits(value: object) -> object:
    """Refuse the other texts that pydantic takes for an integer: 1_000, +1, 1.0, white space. Raises ValueError."""
    if not isinstance(value, str) or re.fullmatch("-?[0-9]+", value):
        return value
    raise ValueError("must be an integer, written in digits")


Digits = BeforeValidator(in_digits)
"""Of each integer that is not in a body."""
PageSize = Annotated[int, Query(ge=1, le=100), Digits]
Number = Annotated[int | None, Query(ge=0, le=INT64), Digits]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=INT64), Digits]
Cursor = Annotated[str | None, Query(pattern=r"^([0-9]{1,14}\.)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""Of MongoStore.newest."""
