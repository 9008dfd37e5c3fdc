"""Conversations as a source of live messages."""

import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from models.conversation import Message
from models.session import SignedIn
from repositories.conversation_repo import ConversationRepository, wake_up_name
from services.effects import session_aggregate
from tristore.live.listeners import Listener, LiveService


class LiveConversations:
    """A `Source`. Its callers are the ids of users."""

    def __init__(self, conversations: ConversationRepository) -> None:
        self._conversations = conversations

    async def exists(self, name: str, caller: str) -> bool:
        return await self._conversations.get(_id(name), uuid.UUID(caller)) is not None

    async def page(self, name: str, limit: int, after: int | None) -> Sequence[Message]:
        return await self._conversations.messages(_id(name), limit, after=after)

    async def last_numbers(self, names: Collection[str]) -> Mapping[str, int]:
        numbers = await self._conversations.last_numbers([_id(name) for name in names])
        return {name: numbers[_id(name)] for name in names if _id(name) in numbers}


def listen(
    live: LiveService[Message],
    conversation_id: uuid.UUID,
    who: SignedIn,
    verify: Callable[[], Awaitable[object]],
    after: int | None,
) -> AbstractAsyncContextManager[Listener]:
    """A listener for the messages after number `after`, or from now on. `verify` raises NotAuthenticated once the
    session has ended. Raises NotFound, TooManyRequests, Overloaded, StoreUnavailable."""
    name, doubts = wake_up_name(conversation_id, who.user_id), [session_aggregate(who.session_id)]
    return live.listen(name, caller=str(who.user_id), doubts=doubts, verify=verify, after=after)


def _id(name: str) -> uuid.UUID:
    return uuid.UUID(name.rpartition(":")[2])
