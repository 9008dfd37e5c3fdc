"""What a person may ask of whoever keeps data about them: a copy of all of it, and the end of all of it."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from database.postgres import start_budget
from database.unit_of_work import UnitOfWork
from models.activity import Activity, ActivityPage
from models.conversation import Conversation
from models.order import Order
from models.session import SignedIn
from repositories.activity_repo import ActivityRepository
from repositories.conversation_repo import ConversationRepository
from repositories.idempotency_repo import IdempotencyRepository
from repositories.order_repo import OrderRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import revocations
from services.effects import EraseDocuments, EraseDocumentsAgain, ForgetProfile, InvalidateProfile, user_key
from tristore.cache.invalidation import Invalidation
from tristore.errors import NotFound
from tristore.outbox.relay import Outbox

PAGE = 500
PAGE_OF_ORDERS = 100
"""Each order costs the event loop 0.4 ms: 500 at a time would hold up everybody else for 0.2 s."""
Item = TypeVar("Item", Activity, Order)


class PrivacyService:
    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        users: UserRepository,
        sessions: SessionRepository,
        orders: OrderRepository,
        idempotency: IdempotencyRepository,
        conversations: ConversationRepository,
        activity: ActivityRepository,
        outbox: Outbox,
        invalidation: Invalidation,
        purge_seconds: float,
        page_seconds: float,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._users = users
        self._sessions = sessions
        self._orders = orders
        self._idempotency = idempotency
        self._conversations = conversations
        self._activity = activity
        self._outbox = outbox
        self._invalidation = invalidation
        self._purge_seconds = purge_seconds
        self._page_seconds = page_seconds

    async def erase(self, user_id: uuid.UUID) -> None:
        """Erase a user: from PostgreSQL at once, but for the id and the time, and the hashes of tokens, which a
        repetition needs until the second pass. MongoDB and Redis are owed it, twice, because what was under way may
        arrive after the first pass. Asked again, all of it happens again. Raises NotFound, StoreUnavailable."""
        async with self._unit_of_work() as uow:
            version = await self._users.erase(uow.session, user_id)
            if version is None:
                raise NotFound
            sessions = await self._sessions.revoke(uow.session, user_id)
            await self._idempotency.forget(uow.session, user_id)
            await self._orders.cancel_pending_of(uow.session, user_id, "erased")
            uow.effects += revocations(sessions)
            await uow.record()  # streams are locked in the order of their names, and the user's are the last of these
            await self._outbox.supersede(uow.session, user_key(user_id))
            later = {"user_id": user_id, "after_seconds": self._purge_seconds}
            uow.effects = [
                InvalidateProfile(user_id=user_id, version=version, heard=True),
                EraseDocuments(user_id=user_id),
                EraseDocumentsAgain.model_validate(later),
                ForgetProfile.model_validate(later),
            ]
            await uow.commit()
        await self._invalidation.deliver(uow.owed)

    async def activity(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> ActivityPage:
        """Newest first. The cursor is the id of the last one seen. Raises StoreUnavailable."""
        found = await self._activity.page(user_id, limit + 1, cursor)
        more = len(found) > limit
        return ActivityPage(items=found[:limit], next_cursor=str(found[limit - 1].id) if more else None)

    async def export(self, who: SignedIn) -> AsyncIterator[bytes]:
        """All that the three stores hold of a user, as one JSON document in pieces; `models.user.Export` is its shape.
        All stores are asked once before the first piece. Raises NotFound, StoreUnavailable."""
        profile = await self._users.get(who.user_id)
        if profile is None:
            raise NotFound
        sessions = await self._sessions.list(who.user_id, who.session_id)
        more_orders = partial(self._orders_before, who.user_id)
        more_activity = partial(self._activity.page, who.user_id, PAGE)
        orders, activity = await more_orders(None), await more_activity(None)

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"profile":' + profile.model_dump_json().encode()
            yield b',"sessions":' + sessions
            yield b',"orders":['
            async for piece in _pages(orders, more_orders):
                yield piece
            yield b'],"activity":['
            async for piece in _pages(activity, more_activity):
                yield piece
            yield b'],"conversations":['
            async for piece in self._conversations_of(who.user_id):
                yield piece
            yield b"]}"

        return pieces()

    async def _orders_before(self, owner: uuid.UUID, before: uuid.UUID | None) -> list[Order]:
        start_budget(self._page_seconds)  # each page has its own: there may be more than one request has time for
        return await self._orders.page(owner, PAGE_OF_ORDERS, before)

    async def _conversations_of(self, owner: uuid.UUID) -> AsyncIterator[bytes]:
        comma, last = b"", None
        # By key, page after page: a cursor of the database would not outlive a slow client.
        while page := await self._conversations.page(owner, PAGE, last):
            for conversation in page:
                yield comma + conversation.model_dump_json().encode()[:-1] + b',"messages":['
                async for piece in self._messages_of(conversation):
                    yield piece
                yield b"]}"
                comma = b","
            last = page[-1].id

    async def _messages_of(self, conversation: Conversation) -> AsyncIterator[bytes]:
        comma, last = b"", 0
        while page := await self._conversations.messages(conversation.id, PAGE, after=last):
            yield comma + _joined(page)
            comma, last = b",", page[-1].seq


async def _pages(
    page: Sequence[Item], following: Callable[[uuid.UUID], Awaitable[Sequence[Item]]]
) -> AsyncIterator[bytes]:
    comma = b""
    while page:
        yield comma + _joined(page)
        page, comma = await following(page[-1].id), b","


def _joined(models: Iterable[BaseModel]) -> bytes:
    return b",".join(model.model_dump_json().encode() for model in models)
