"""LiveService on a source in memory and on a real Redis: what no client can bring about on purpose."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import Feed
from tristore.errors import NotAuthenticated, NotFound
from tristore.live.listeners import AT_ONCE, Listener, LiveService
from tristore.settings import TristoreSettings
from tristore.stores.postgres import _budget, within_budget
from tristore.stores.redis import RedisStore
from tristore.testing.live import SELDOM
from tristore.testing.stores import Servers, real_redis, settings_on

NAME, CALLER, DOUBT = "list:1", "caller", "right:1"


async def always() -> None:
    """A caller who may listen."""


@dataclass
class Line:
    seq: int


class Lists:
    """A source that is the caller's. It tells of each page that was read, before the reader has it."""

    def __init__(self) -> None:
        self.lines: dict[str, list[Line]] = defaultdict(list)
        self.on_read: Callable[[], Awaitable[object]] = always
        self.reads = self.most_reads = self.answered = 0
        self.add()

    def add(self) -> None:
        self.lines[NAME].append(Line(len(self.lines[NAME]) + 1))

    async def exists(self, name: str, caller: str) -> bool:
        return name in self.lines and caller == CALLER

    async def page(self, name: str, limit: int, after: int | None) -> Sequence[Line]:
        self.reads += 1
        self.most_reads = max(self.most_reads, self.reads)
        lines = self.lines[name]
        found = lines[-limit:] if after is None else lines[after : after + limit]
        self.answered += 1
        await self.on_read()
        self.reads -= 1
        return found

    async def last_number(self, name: str) -> int:
        return self.lines[name][-1].seq

    async def recent_numbers(self, names: Collection[str], seconds: float) -> Mapping[str, int | None]:
        return {name: self.lines[name][-1].seq for name in names if name in self.lines}


@dataclass
class Served:
    """A service whose poll and heartbeat do not come by themselves."""

    live: LiveService[Line]
    lists: Lists
    feed: Feed
    redis: RedisStore

    def listen(self, after: int | None = None, verify: Callable[[], Awaitable[object]] = always) -> Any:
        return self.live.listen(NAME, caller=CALLER, verify=verify, doubts=[DOUBT], after=after)

    async def first(self, listener: Listener, count: int) -> list[int]:
        """The numbers of the next lines."""
        numbers: list[int] = []
        async with asyncio.timeout(5):
            async for line in self.live.follow(listener):
                numbers += [line.seq] if line else []
                if len(numbers) == count:
                    break
        return numbers


@asynccontextmanager
async def serving(servers: Servers, **changes: Any) -> AsyncIterator[Served]:
    async with real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)) as redis:
        lists, feed = Lists(), Feed(redis, CircuitBreaker("redis", 3, 1))
        live = LiveService(lists, feed=feed, **SELDOM | changes)
        feed.start()
        live.start()
        yield Served(live, lists, feed, redis)
        await live.close()
        await feed.close()


async def test_what_comes_while_the_last_number_is_read_is_not_missed(servers: Servers) -> None:
    async with serving(servers) as served:

        async def add_once() -> None:
            served.lists.on_read = always
            served.lists.add()
            served.feed.send(NAME)

        served.lists.on_read = add_once
        async with served.listen() as listener:
            assert await served.first(listener, 1) == [2]


async def test_who_is_ahead_begins_with_what_comes_from_now_on(servers: Servers) -> None:
    async with serving(servers) as served:
        for after, ahead, last in ((0, False, 0), (1, False, 1), (2, True, 1), (2**63 - 1, True, 1)):
            async with served.listen(after) as listener:
                assert (listener.ahead, listener.last) == (ahead, last)
        async with served.listen(7) as listener:
            served.lists.add()
            served.feed.send(NAME)
            assert await served.first(listener, 1) == [2]


async def test_what_does_not_exist_for_the_caller_has_no_listener(servers: Servers) -> None:
    async with serving(servers, max_per_caller=1) as served:
        for name, caller in ((NAME, "somebody else"), ("list:2", CALLER)):
            for _ in range(2):  # it takes no place either
                with pytest.raises(NotFound):
                    async with served.live.listen(name, caller=caller, verify=always):
                        pass
        assert served.live.listening == 0


async def test_wake_ups_that_were_lost_with_the_connection_are_made_up_for_at_once(servers: Servers) -> None:
    async with serving(servers) as served, served.listen() as listener:
        served.lists.add()  # and nobody is woken
        following = asyncio.create_task(served.first(listener, 1))
        while not following.done():
            await served.redis.client.client_kill_filter(_type="pubsub")
            await asyncio.wait([following], timeout=0.5)
        assert await following == [2]


async def test_all_who_are_woken_together_leave_the_stores_to_others_too(servers: Servers) -> None:
    gate = asyncio.Event()
    many = AT_ONCE * 3
    async with serving(servers) as served:
        async with AsyncExitStack() as exits:
            listeners = [await exits.enter_async_context(served.listen(after=0)) for _ in range(many)]
            served.lists.on_read = gate.wait
            following = [asyncio.create_task(served.first(listener, 1)) for listener in listeners]
            while served.lists.answered < AT_ONCE:
                await asyncio.sleep(0.01)
            gate.set()
            assert await asyncio.gather(*following) == [[1]] * many
        assert served.lists.most_reads == AT_ONCE


async def test_each_check_of_the_caller_has_all_its_time(servers: Servers) -> None:
    checks = 0

    async def slow_check() -> None:
        nonlocal checks
        async with within_budget():
            await asyncio.sleep(0)
        budget = _budget.get()
        assert budget
        budget.remaining -= 20  # as if it had waited for so long
        checks += 1
        if checks == 3:
            raise NotAuthenticated

    async with serving(servers, heartbeat_seconds=0.05, verify_seconds=30) as served:
        async with served.listen(verify=slow_check) as listener, asyncio.timeout(5):
            heartbeats = [line async for line in served.live.follow(listener)]
    assert heartbeats == [None] * 2


@pytest.mark.parametrize("doubted", [True, False])
async def test_without_postgresql_a_stream_goes_on_unless_the_caller_may_just_have_lost_the_right(
    servers: Servers, doubted: bool
) -> None:
    async def unanswered() -> None:
        async with within_budget():
            raise TimeoutError

    async with serving(servers, heartbeat_seconds=0.1) as served:
        async with served.listen(verify=unanswered) as listener, asyncio.timeout(5):
            if doubted:
                served.feed.send(DOUBT)
                assert [line async for line in served.live.follow(listener)] == []
            else:
                served.lists.add()
                served.feed.send(NAME)
                async for line in served.live.follow(listener):
                    if line is None:  # the check could not be made, and the next line comes all the same
                        break
                assert listener.last == 2
