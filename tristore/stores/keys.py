"""The keys that a store has, in batches and in their order: so two stores can be compared however large they are."""

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import InstrumentedAttribute

from tristore.stores.mongodb import Document, MongoStore
from tristore.stores.postgres import Postgres, connect


class Lookup(Protocol):
    async def among(self, keys: Collection[str]) -> set[str]:
        """Those of these that are there. Raises StoreUnavailable."""


class Keys(Lookup, Protocol):
    async def following(self, after: str, limit: int) -> Sequence[str]:
        """Up to so many that come after this one, in order; "" comes before the first. One key may come several times.
        Raises StoreUnavailable."""


@dataclass(frozen=True)
class PostgresKeys:
    """The values of a column of UUIDs that has an index."""

    postgres: Postgres
    column: InstrumentedAttribute[uuid.UUID] | ColumnElement[uuid.UUID]
    where: Sequence[ColumnElement[bool]] = ()

    async def following(self, after: str, limit: int) -> Sequence[str]:
        query = select(self.column).where(self.column.is_not(None), *self.where).order_by(self.column).limit(limit)
        return await self._found(query.where(self.column > uuid.UUID(after)) if after else query)

    async def among(self, keys: Collection[str]) -> set[str]:
        return set(await self._found(select(self.column).where(self.column.in_(list(uuids(keys))), *self.where)))

    async def _found(self, query: Select[uuid.UUID]) -> list[str]:
        async with connect(self.postgres.background) as connection:
            return [str(value) for value in await connection.scalars(query)]


@dataclass(frozen=True)
class MongoKeys:
    """The values of a field that has an index and holds text."""

    mongodb: MongoStore
    collection: str
    name: str = "_id"
    where: Document | None = None

    async def following(self, after: str, limit: int) -> Sequence[str]:
        wanted = (self.where or {}) | {self.name: {"$gt": after}}
        only = {"_id": 0, self.name: 1}  # of an index alone, where there is one of this field
        async with self.mongodb.reading() as database:
            found = await database[self.collection].find(wanted, only).sort(self.name, 1).limit(limit).to_list(None)
        return [document[self.name] for document in found]

    async def among(self, keys: Collection[str]) -> set[str]:
        wanted = (self.where or {}) | {self.name: {"$in": list(keys)}}
        async with self.mongodb.reading() as database:
            return set(await database[self.collection].distinct(self.name, wanted))


@dataclass(frozen=True)
class InAny:
    """What is there when one of several has it."""

    places: Sequence[Lookup]

    async def among(self, keys: Collection[str]) -> set[str]:
        found: set[str] = set()
        for place in self.places:
            if left := set(keys) - found:
                found |= await place.among(left)
        return found


def uuids(keys: Iterable[str]) -> Iterator[uuid.UUID]:
    """Those that are some."""
    for key in keys:
        with suppress(ValueError):  # what is none is in no such column
            yield uuid.UUID(key)
