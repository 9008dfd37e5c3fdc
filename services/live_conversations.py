"""Conversations as a source of live messages, and of hints which of them have new ones."""

import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from models.conversation import Message
from models.session import SignedIn
from repositories.conversation_repo import ConversationRepository, wake_up_name
from services.effects import session_aggregate
from tristore.live.listeners import E, Listener, Listeners
from tristore.models import now


class LiveConversations:
    """A `Source` and a `HintSource`. Callers are the ids of users; names are of a conversation, or of all of a user."""

    def __init__(self, conversations: ConversationRepository) -> None:
        self._conversations = conversations

    async def exists(self, name: str, caller: str) -> bool:
        return await self._conversations.get(_id(name), uuid.UUID(caller)) is not None

    async def page(self, name: str, limit: int, after: int | None) -> Sequence[Message]:
        return await self._conversations.messages(_id(name), limit, after=after)

    async def last_numbers(self, names: Collection[str]) -> Mapping[str, int]:
        numbers = await self._conversations.last_numbers([_id(name) for name in names])
        return {name: numbers[_id(name)] for name in names if _id(name) in numbers}

    async def newest(self, name: str, limit: int) -> Collection[str]:
        return await self._conversations.newest(_id(name), limit)

    async def numbers(self, keys: Collection[str]) -> Mapping[str, int]:
        return await self._conversations.exact_numbers(keys)

    async def moved(self, names: Collection[str], seconds: float) -> Iterable[tuple[str, str, int]]:
        found = await self._conversations.moved([_id(name) for name in names], now() - timedelta(seconds=seconds))
        return ((wake_up_name(owner), id_, number) for owner, id_, number in found)


def listen(
    live: Listeners[E],
    who: SignedIn,
    verify: Callable[[], Awaitable[object]],
    *conversation: uuid.UUID,
    after: int | None = None,
) -> AbstractAsyncContextManager[Listener]:
    """A listener to one conversation or to all, for what comes after number `after`, or from now on. `verify` raises
    NotAuthenticated once the session has ended. Raises NotFound, TooManyRequests, Overloaded, StoreUnavailable."""
    name, doubts = wake_up_name(who.user_id, *conversation), [session_aggregate(who.session_id)]
    return live.listen(name, caller=str(who.user_id), doubts=doubts, verify=verify, after=after)


def _id(name: str) -> uuid.UUID:
    return uuid.UUID(name.rpartition(":")[2])
