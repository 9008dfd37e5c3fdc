"""How something that belongs to a user is exported and erased. The product lists all of it in one place."""

import asyncio
import uuid
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import GenericAlias
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, create_model
from sqlalchemy.ext.asyncio import AsyncSession

from tristore.models import Page
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.mongodb import MongoStore
from tristore.stores.postgres import Postgres, start_budget
from tristore.stores.stores import Stores

PAGE = 500
PAGE_BYTES = 32 * 1024
"""About so large is a page of an export, however many rows or documents that is. A client that reads slowly keeps one
of each list in memory."""
FIRST = 10
"""Rows or documents of the first page, when nothing is known of their size."""
READ_AT_ONCE = 4
Item = TypeVar("Item", bound=BaseModel)


@dataclass(frozen=True)
class Sources:
    """What entities are read from and erased in. A product adds what its own need."""

    stores: Stores
    page_seconds: float
    """How long a page may wait for PostgreSQL. An export has more pages than one request has time for."""
    reading: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, READ_AT_ONCE), kw_only=True)
    """For pages that may be large while they are read. Exports that begin together take turns."""


class Owner(Protocol):
    @property
    def user_id(self) -> uuid.UUID: ...


Of = TypeVar("Of", bound=Sources, contravariant=True)
Who = TypeVar("Who", bound=Owner, contravariant=True)


@dataclass(frozen=True)
class Entity(Generic[Of, Who]):
    name: str
    """Names the field in the export."""
    shape: object
    """Type of the field."""
    stored_in: Sequence[str]
    """Its tables or collections."""
    export: Callable[[Of, Who], AsyncIterator[bytes]] | None
    """The JSON of the field, in pieces. It reads before its first piece, so that a store that is down is a 503. None
    for what tells the user nothing."""


@dataclass(frozen=True)
class Rows(Entity[Of, Who]):
    """In PostgreSQL. `erase` runs in the transaction of the erasure, after the user is locked."""

    erase: Callable[[Of, PostgresUnitOfWork, uuid.UUID], Awaitable[None]]
    keeps: Sequence[str] = ()
    """Tables whose rows stay, under an id that names nobody any more."""


@dataclass(frozen=True)
class Documents(Entity[Of, Who]):
    """In MongoDB. `erase` runs twice: the second time for good, when nothing can arrive late any more."""

    erase: Callable[[Of, uuid.UUID, bool], Awaitable[None]]


class RowsOfUser(Protocol[Item]):
    async def page(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Item]: ...
    async def erase(self, session: AsyncSession, owner: uuid.UUID) -> None: ...


class DocumentsOfUser(Protocol[Item]):
    async def page(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Item]: ...
    async def erase(self, owner: uuid.UUID, *, for_good: bool) -> None: ...


def rows(
    name: str,
    item: type[Item],
    repository: Callable[[Postgres], RowsOfUser[Item]],
    *,
    tables: Sequence[str] = (),
    keeps: Sequence[str] = (),
    size: int = PAGE,
) -> Rows[Sources, Owner]:
    """A list of items in PostgreSQL, in the table of this name unless `tables` says else."""

    def export(of: Sources, who: Owner) -> AsyncIterator[bytes]:
        async def read(limit: int, cursor: uuid.UUID | None) -> Page[Item]:
            start_budget(of.page_seconds)
            return await repository(of.stores.postgres).page(who.user_id, min(size, limit), cursor)

        return listed(read, joined)

    async def erase(of: Sources, uow: PostgresUnitOfWork, user_id: uuid.UUID) -> None:
        await repository(of.stores.postgres).erase(uow.session, user_id)

    return Rows(name, GenericAlias(list, item), tables or [name], export, erase, keeps)


def documents(
    name: str, item: type[Item], repository: Callable[[MongoStore], DocumentsOfUser[Item]]
) -> Documents[Sources, Owner]:
    """A list of items in MongoDB, in the collection of this name."""

    def export(of: Sources, who: Owner) -> AsyncIterator[bytes]:
        return listed(partial(repository(of.stores.mongodb).page, who.user_id), joined)

    async def erase(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
        await repository(of.stores.mongodb).erase(user_id, for_good=for_good)

    return Documents(name, GenericAlias(list, item), [name], export, erase)


async def listed(
    read: Callable[[int, uuid.UUID | None], Awaitable[Page[Item]]],
    write: Callable[[Sequence[Item]], AsyncIterator[bytes]],
) -> AsyncIterator[bytes]:
    """A JSON list of all pages. By key, page after page: a cursor of the database would not outlive a slow client.
    `read` takes the most items of the page, and the cursor. From page to page there are more, up to `PAGE`, as long as
    what `write` made of the page before has at most `PAGE_BYTES`."""
    limit = FIRST
    page = await read(limit, None)
    yield b"["
    while True:
        size = 0
        async for piece in write(page.items):
            size += len(piece)
            yield piece
        if not page.next_cursor:
            break
        limit = max(1, min(PAGE, 2 * limit, limit * PAGE_BYTES // max(size, 1)))
        page = await read(limit, page.next_cursor)
        if page.items:
            yield b","
    yield b"]"


async def joined(items: Sequence[BaseModel]) -> AsyncIterator[bytes]:
    yield b",".join(item.model_dump_json().encode() for item in items)


class Pieces:
    """Of an export. It goes on until it is closed, also by whoever never asked for the first piece."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], end: Callable[[], object]) -> None:
        self._pieces = pieces
        self._end = weakref.finalize(self, end)  # or given up, which the garbage collector may see late

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        self._end()
        await self._pieces.aclose()


def export_model(entities: Iterable[Entity[Of, Who]]) -> type[BaseModel]:
    """The shape of an export: a field for each entity that is exported."""
    fields: dict[str, Any] = {entity.name: (entity.shape, ...) for entity in entities if entity.export}
    return create_model("Export", __doc__="All that the stores hold of a user.", **fields)


async def export(entities: Iterable[Entity[Of, Who]], of: Of, who: Who) -> AsyncGenerator[bytes, None]:
    """One JSON document in pieces, of the shape of `export_model`. Each entity is read once before the first piece.
    Raises what they raise."""
    values = [(entity.name, entity.export(of, who)) for entity in entities if entity.export]
    started = [(name, await anext(pieces), pieces) for name, pieces in values]

    async def document() -> AsyncGenerator[bytes, None]:
        opening = b"{"
        for name, first, rest in started:
            yield opening + f'"{name}":'.encode() + first
            async for piece in rest:
                yield piece
            opening = b","
        yield b"}"

    return document()


async def erase_rows(entities: Iterable[Entity[Of, Who]], of: Of, uow: PostgresUnitOfWork, user_id: uuid.UUID) -> None:
    """Erase what PostgreSQL has of a user, in the transaction that has locked the user."""
    for entity in entities:
        if isinstance(entity, Rows):
            await entity.erase(of, uow, user_id)


async def erase_documents(entities: Iterable[Entity[Of, Who]], of: Of, user_id: uuid.UUID, for_good: bool) -> None:
    """Erase what MongoDB has of a user. Raises StoreUnavailable."""
    for entity in entities:
        if isinstance(entity, Documents):
            await entity.erase(of, user_id, for_good)
