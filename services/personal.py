"""Everything that belongs to a user stands in one list, `PERSONAL`: how it leaves in an export, and how it is erased.

A test compares the list with the tables and collections that name a user."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, create_model

from database.mongodb import MongoStore
from database.postgres import Postgres, start_budget
from database.stores import Stores
from database.unit_of_work import Transaction, UnitOfWork
from models.activity import Activity
from models.conversation import Conversation, ExportedConversation
from models.order import Order
from models.session import SessionInfo, SignedIn
from models.user import FullProfile
from repositories.activity_repo import ActivityRepository
from repositories.conversation_repo import ConversationRepository
from repositories.idempotency_repo import IdempotencyRepository
from repositories.order_repo import OrderRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import revocations
from tristore.errors import NotFound
from tristore.models import Page

PAGE = 500
ORDER_TABLES = ["orders", "points_ledger"]
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

        return _list(read, _joined)

    async def erase(of: Sources, uow: UnitOfWork, user_id: uuid.UUID) -> None:
        await repository(of.stores.postgres).erase(uow.session, user_id)

    return Rows(name, GenericAlias(list, item), tables or [name], export, erase, keeps)


def documents(name: str, item: type[Item], repository: Callable[[MongoStore], DocumentsOfUser[Item]]) -> Documents:
    """A list of items in MongoDB, in the collection of this name."""

    def export(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
        return _list(lambda cursor: repository(of.stores.mongodb).page(who.user_id, PAGE, cursor), _joined)

    async def erase(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
        await repository(of.stores.mongodb).erase(user_id, for_good=for_good)

    return Documents(name, GenericAlias(list, item), [name], export, erase)


async def _list(
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


async def _joined(items: Sequence[BaseModel]) -> AsyncIterator[bytes]:
    yield b",".join(item.model_dump_json().encode() for item in items)


async def _export_profile(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    profile = await UserRepository(of.stores.postgres).get(who.user_id)
    if profile is None:
        raise NotFound
    yield profile.model_dump_json().encode()


async def _erase_profile(of: Sources, uow: UnitOfWork, user_id: uuid.UUID) -> None:
    await UserRepository(of.stores.postgres).erase_profile(uow.session, user_id)


async def _export_sessions(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    yield await of.sessions.list(who.user_id, who.session_id)


async def _end_sessions(of: Sources, uow: UnitOfWork, user_id: uuid.UUID) -> None:
    """Only the hashes of tokens stay, until the second pass: a repeated erasure needs them."""
    uow.effects += revocations(await of.sessions.revoke(uow.session, user_id))


async def _erase_keys(of: Sources, uow: UnitOfWork, user_id: uuid.UUID) -> None:
    await IdempotencyRepository().erase(uow.session, user_id)


def _export_conversations(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    conversations = ConversationRepository(of.stores.mongodb)

    async def write(page: Sequence[Conversation]) -> AsyncIterator[bytes]:
        for number, conversation in enumerate(page):
            yield b"," * (number > 0) + conversation.model_dump_json().encode()[:-1] + b',"messages":['
            last, comma = 0, b""
            while messages := await conversations.messages(conversation.id, PAGE, after=last):
                async for piece in _joined(messages):
                    yield comma + piece
                last, comma = messages[-1].seq, b","
            yield b"]}"

    return _list(lambda cursor: conversations.page(who.user_id, PAGE, cursor), write)


async def _erase_conversations(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
    await ConversationRepository(of.stores.mongodb).erase(user_id, for_good=for_good)


PERSONAL: Sequence[Rows | Documents] = [
    Rows("profile", FullProfile, ["users", "profiles"], _export_profile, _erase_profile, keeps=["users"]),
    Rows("sessions", list[SessionInfo], ["sessions"], _export_sessions, _end_sessions),
    Rows("idempotency_keys", None, ["idempotency_keys"], None, _erase_keys),
    # Each order costs the event loop 0.4 ms: 500 at a time would hold up everybody else for 0.2 s.
    rows("orders", Order, OrderRepository, tables=ORDER_TABLES, keeps=ORDER_TABLES, size=100),
    documents("activity", Activity, ActivityRepository),
    Documents(
        "conversations",
        list[ExportedConversation],
        ["conversations", "messages"],
        _export_conversations,
        _erase_conversations,
    ),
]
"""In the order of the export. A new entity is one line more, mostly `rows(...)` or `documents(...)`."""


async def erase_documents(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
    """Erase what MongoDB has of a user. Raises StoreUnavailable."""
    for entity in PERSONAL:
        if isinstance(entity, Documents):
            await entity.erase(of, user_id, for_good)


_fields: dict[str, Any] = {entity.name: (entity.shape, ...) for entity in PERSONAL if entity.export}
Export = create_model("Export", __doc__="All that the stores hold of a user.", **_fields)
