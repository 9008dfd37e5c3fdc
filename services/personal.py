"""Everything that belongs to a user stands in one list, `PERSONAL`. It is exported, and erased with the user.

A test compares the list with the tables and collections that name a user."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from models.activity import Activity
from models.conversation import ExportedConversation, Message
from models.idempotency import IdempotencyRecord
from models.link import EmailLink
from models.session import SessionInfo, SignedIn
from models.user import FullProfile
from repositories.activity_repo import ActivityRepository
from repositories.conversation_repo import ConversationRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import revocations
from tristore import personal
from tristore.errors import found
from tristore.idempotency import IdempotencyRepository
from tristore.links import LinkRepository, MailedLink
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.personal import PAGE, PAGE_BYTES, Documents, Rows, documents, joined, listed, rows

# begin part orders
# isort: split
from services.order_service import ORDERS

# end part orders


@dataclass(frozen=True)
class Sources(personal.Sources):
    sessions: SessionRepository


async def _export_profile(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    profile = found(await UserRepository(of.stores.postgres).get(who.user_id))
    yield profile.model_dump_json().encode()


async def _erase_profile(of: Sources, uow: PostgresUnitOfWork, user_id: uuid.UUID) -> None:
    await UserRepository(of.stores.postgres).erase_profile(uow.session, user_id)


async def _export_sessions(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    yield await of.sessions.list(who.user_id, who.session_id)


async def _end_sessions(of: Sources, uow: PostgresUnitOfWork, user_id: uuid.UUID) -> None:
    """Only the hashes of tokens stay, until the second pass: a repeated erasure needs them."""
    uow.effects += revocations(await of.sessions.revoke(uow.session, user_id))


async def _erase_keys(of: Sources, uow: PostgresUnitOfWork, user_id: uuid.UUID) -> None:
    await IdempotencyRepository(IdempotencyRecord).erase(uow.session, user_id)


def _export_conversations(of: Sources, who: SignedIn) -> AsyncIterator[bytes]:
    conversations = ConversationRepository(of.stores.mongodb)

    async def read(conversation_id: uuid.UUID, after: int) -> Sequence[Message]:
        async with of.reading:
            return await conversations.messages(conversation_id, PAGE, after=after, most_bytes=PAGE_BYTES)

    async def write(page: Sequence[ExportedConversation]) -> AsyncIterator[bytes]:
        for number, conversation in enumerate(page):
            head = conversation.model_dump_json(exclude={"messages"}).encode()[:-1]
            yield b"," * (number > 0) + head + b',"messages":['
            last, comma = 0, b""
            while messages := await read(conversation.id, last):
                async for piece in joined(messages):
                    yield comma + piece
                last, comma = messages[-1].seq, b","
            yield b"]}"

    return listed(partial(conversations.page, who.user_id), write)


async def _erase_conversations(of: Sources, user_id: uuid.UUID, for_good: bool) -> None:
    await ConversationRepository(of.stores.mongodb).erase(user_id, for_good=for_good)


PERSONAL: Sequence[Rows[Sources, SignedIn] | Documents[Sources, SignedIn]] = [
    Rows("profile", FullProfile, ["users", "profiles"], _export_profile, _erase_profile, keeps=["users"]),
    Rows("sessions", list[SessionInfo], ["sessions"], _export_sessions, _end_sessions),
    rows("email_links", MailedLink, lambda postgres: LinkRepository(postgres, EmailLink)),
    Rows("idempotency_keys", None, ["idempotency_keys"], None, _erase_keys),
    # begin part orders
    ORDERS,
    # end part orders
    documents("activity", Activity, ActivityRepository),
    Documents(
        "conversations",
        list[ExportedConversation],
        ["conversations", "messages"],
        _export_conversations,
        _erase_conversations,
    ),
]
"""In the order of the export. A new entity is one line here: `rows(...)` or `documents(...)` makes it."""

Export = personal.export_model(PERSONAL)
