"""Tags stand for the states of something that several may change. Who sends the tag of what was read changes nothing
that somebody else has changed since."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Row, String, any_, cast, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningUpdate

from tristore.errors import StaleTag

Tags = Collection[str] | None
"""Of the states in which something may be changed. None: in every state."""


def tag_of_version(version: InstrumentedAttribute[int], prefix: str = "") -> ColumnElement[str]:
    """The tag of a row, as SQL: the prefix and the number that grows with each change."""
    return prefix + cast(version, String)


async def update_tagged(
    session: AsyncSession, query: ReturningUpdate[*tuple[Any, ...]], tag: ColumnElement[str], tags: Tags
) -> Row[Any] | None:
    """Update the one row that the query finds, if its tag is among these; None when it finds none. Raises StaleTag."""
    in_time = query if tags is None else query.where(tag == any_(literal(list(tags), ARRAY(String))))
    row: Row[Any] | None = (await session.execute(in_time)).one_or_none()
    if row is None and tags is not None and query.whereclause is not None:
        current = await session.scalar(select(tag).where(query.whereclause))
        if current is not None:
            raise StaleTag(current)
    return row
