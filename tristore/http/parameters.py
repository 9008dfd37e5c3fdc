"""Parameters that many routes have."""

from typing import Annotated

from fastapi import Header, Query

from tristore.models import INT64

PageSize = Annotated[int, Query(ge=1, le=100)]
Number = Annotated[int | None, Query(ge=0, le=INT64)]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=INT64)]
Cursor = Annotated[str | None, Query(pattern=r"^([0-9]{1,14}\.)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""Of MongoStore.newest."""
