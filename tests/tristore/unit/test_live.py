"""LiveService on real stores: what no client can bring about on purpose."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from models.conversation import Conversation, Message, NewMessage
from models.session import SignedIn
from repositories.conversation_repo import ConversationRepository
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import WakeUpRepository
from tristore.errors import NotAuthenticated
from tristore.live.listeners import AT_ONCE, Listener, LiveService
from tristore.models import new_id, now
from tristore.stores.postgres import within_budget
from tristore.stores.stores import Stores

WHO = SignedIn(session_id=new_id(), user_id=new_id())


async def always() -> None:
    """A session that is well."""


@asynccontextmanager
async def serving(stores: Stores, conversations: ConversationRepository, **changes: Any) -> AsyncIterator[LiveService]:
    """A service whose poll and heartbeat do not come by themselves."""
    settings: dict[str, Any] = {
        "poll_seconds": 60,
        "heartbeat_seconds": 60,
        "send_seconds": 5,
        "verify_seconds": 1,
        "max_per_user": 100,
        "max_listeners": 100,
    }
    wake_ups = WakeUpRepository(stores.redis, CircuitBreaker("redis", 3, 1))
    live = LiveService(conversations=conversations, wake_ups=wake_ups, **settings | changes)
    live.start()
    yield live
    await live.close()


async def started(conversations: ConversationRepository) -> uuid.UUID:
    conversation = Conversation(id=new_id(), user_id=WHO.user_id, title="t", created_at=now(), updated_at=now())
    await conversations.add(conversation)
    return conversation.id


async def append(conversations: ConversationRepository, conversation_id: uuid.UUID) -> None:
    assert await conversations.append(conversation_id, WHO.user_id, NewMessage(content="x"))


async def first(live: LiveService, listener: Listener, count: int) -> list[int]:
    """The numbers of the next messages."""
    numbers: list[int] = []
    async with asyncio.timeout(5):
        async for message in live.follow(listener):
            numbers += [message.seq] if message else []
            if len(numbers) == count:
                break
    return numbers


class Reading(ConversationRepository):
    """Tells of each read of messages, before its answer is given."""

    def __init__(self, stores: Stores) -> None:
        super().__init__(stores.mongodb)
        self.on_read: Callable[[], Awaitable[object]] = always
        self.reads = self.most_reads = self.answered = 0

    async def messages(self, *which: Any, **more: Any) -> list[Message]:
        self.reads += 1
        self.most_reads = max(self.most_reads, self.reads)
        found = await super().messages(*which, **more)
        self.answered += 1
        await self.on_read()
        self.reads -= 1
        return found


async def test_what_comes_while_the_last_number_is_read_is_not_missed(stores: Stores) -> None:
    conversations = Reading(stores)
    async with serving(stores, conversations) as live:
        id_ = await started(conversations)
        appender = ConversationRepository(stores.mongodb, live._wake_ups.send)
        await append(appender, id_)

        async def append_once() -> None:
            conversations.on_read = always
            await append(appender, id_)

        conversations.on_read = append_once
        async with live.listen(id_, WHO, None, always) as listener:
            assert await first(live, listener, 1) == [2]
        await appender.close()


async def test_wake_ups_that_were_lost_with_the_connection_are_made_up_for_at_once(stores: Stores) -> None:
    conversations = ConversationRepository(stores.mongodb)  # it wakes nobody
    async with serving(stores, conversations) as live:
        id_ = await started(conversations)
        async with live.listen(id_, WHO, None, always) as listener:
            await append(conversations, id_)
            following = asyncio.create_task(first(live, listener, 1))
            while not following.done():
                await stores.redis.client.client_kill_filter(_type="pubsub")
                await asyncio.wait([following], timeout=0.5)
            assert await following == [1]


async def test_all_who_are_woken_together_leave_the_stores_to_others_too(stores: Stores) -> None:
    conversations = Reading(stores)
    gate = asyncio.Event()
    many = AT_ONCE * 3
    async with serving(stores, conversations) as live:
        id_ = await started(conversations)
        await append(conversations, id_)
        async with AsyncExitStack() as exits:
            listeners = [await exits.enter_async_context(live.listen(id_, WHO, 0, always)) for _ in range(many)]
            conversations.on_read = gate.wait
            following = [asyncio.create_task(first(live, listener, 1)) for listener in listeners]
            while conversations.answered < AT_ONCE:
                await asyncio.sleep(0.01)
            gate.set()
            assert await asyncio.gather(*following) == [[1]] * many
        assert conversations.most_reads == AT_ONCE


async def test_each_check_of_the_session_has_all_its_time(stores: Stores) -> None:
    checks = 0

    async def slow_check() -> None:
        nonlocal checks
        async with within_budget():
            await asyncio.sleep(0.2)
        checks += 1
        if checks == 3:
            raise NotAuthenticated

    conversations = ConversationRepository(stores.mongodb)
    async with serving(stores, conversations, heartbeat_seconds=0.05, verify_seconds=0.3) as live:
        id_ = await started(conversations)
        async with live.listen(id_, WHO, None, slow_check) as listener, asyncio.timeout(5):
            heartbeats = [message async for message in live.follow(listener)]
    assert heartbeats == [None] * 2


@pytest.mark.parametrize("doubted", [True, False])
async def test_without_postgresql_a_stream_goes_on_unless_its_session_may_just_have_ended(
    stores: Stores, doubted: bool
) -> None:
    async def unanswered() -> None:
        async with within_budget():
            raise TimeoutError

    conversations = ConversationRepository(stores.mongodb)
    async with serving(stores, conversations, heartbeat_seconds=0.1) as live:
        id_ = await started(conversations)
        async with live.listen(id_, WHO, None, unanswered) as listener, asyncio.timeout(5):
            if doubted:
                live._wake([f"session:{WHO.session_id}"])
                assert [message async for message in live.follow(listener)] == []
            else:
                await append(conversations, id_)
                live._wake([f"conversation:{id_}"])
                async for message in live.follow(listener):
                    if message is None:  # the check could not be made, and the next message comes all the same
                        break
                assert listener.last == 1
