"""How something that belongs to a user is exported and erased. `PERSONAL` in personal.py lists all of it."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Protocol, TypeVar

from pydantic import BaseModel

from database.mongodb import MongoStore
from database.postgres import Postgres, start_budget
from database.stores import Stores
from database.unit_of_work import Transaction, UnitOfWork
from models.session import SignedIn
from repositories.session_repo import SessionRepository
from tristore.models import Page

PAGE = 500
Item = TypeVar("Item", bound=BaseModel)


@dataclass(frozen=True)
class Sources:
    """What entities are read from and erased in."""

    stores: Stores
    sessions: SessionRepository
    page_seconds: float
    """How long a page may wait for PostgreSQL. An export has more pages than one request has time for."""


Pieces = Callable[[Sources, SignedIn], AsyncIterator[bytes]]
"""The JSON of one field, in pieces. It reads before its first piece, so that a store that is down is a 503."""


@dataclass(frozen=True)
class Entity:
    name: str
    """Names the field in the export."""
    shape: object
    """Type of the field."""
    stored_in: Sequence[str]
    """Its tables or collections."""
    export: Pieces | None
    """None for what tells the user nothing."""


@dataclass(frozen=True)
class Rows(Entity):
    """In PostgreSQL. `erase` runs in the transaction of the erasure, after the user is locked."""

    erase: Callable[[Sources, UnitOfWork, uuid.UUID], Awaitable[None]]
    keeps: Sequence[str] = ()
    """Tables whose rows stay, under an id that names nobody any more."""


@dataclass(frozen=True)
class Documents(Entity):
    """In MongoDB. `erase` runs twice: the second time for good, when nothing can arrive late any more."""

    erase: Callable[[Sources, uuid.UUID, bool], Awaitable[None]]


class RowsOfUser(Protocol[Item]):
    async def page(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Item]: ...
    async def erase(self, transaction: Transaction, owner: uuid.UUID) -> None: ...


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
) -> Rows:
    """A list of items in PostgreSQL, in the table of this name unless `tables` says else."""

    def export(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
        async def read(cursor: uuid.UUID | None) -> Page[Item]:
            start_budget(of.page_seconds)
            return await repository(of.stores.postgres).page(who.user_id, size, cursor)

        return listed(read, joined)

    async def erase(of: Sources, uow: UnitOfWork, user_id: uuid.UUID) -> None:
        await repository(of.stores.postgres).erase(uow.session, user_id)

    return Rows(name, GenericAlias(list, item), tables or [name], export, erase, keeps)


def documents(name: str, item: type[Item], repository: Callable[[MongoStore], DocumentsOfUser[Item]]) -> Documents:
    """A list of items in MongoDB, in the collection of this name."""

    def export(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
        return listed(lambda cursor: repository(of.stores.mongodb).page(who.user_id, PAGE, cursor), joined)

    async def erase(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
        await repository(of.stores.mongodb).erase(user_id, for_good=for_good)

    return Documents(name, GenericAlias(list, item), [name], export, erase)


async def listed(
    read: Callable[[uuid.UUID | None], Awaitable[Page[Item]]],
    write: Callable[[Sequence[Item]], AsyncIterator[bytes]],
) -> AsyncIterator[bytes]:
    # By key, page after page: a cursor of the database would not outlive a slow client.
    page = await read(None)
    yield b"["
    async for piece in write(page.items):
        yield piece
    while page.next_cursor:
        page = await read(page.next_cursor)
        if page.items:
            yield b","
        async for piece in write(page.items):
            yield piece
    yield b"]"


async def joined(items: Sequence[BaseModel]) -> AsyncIterator[bytes]:
    yield b",".join(item.model_dump_json().encode() for item in items)
