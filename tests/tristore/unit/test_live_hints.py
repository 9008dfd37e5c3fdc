"""HintService on a source in memory and on a real Redis: what no client can bring about on purpose."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import Feed
from tristore.errors import StoreUnavailable
from tristore.live import hints
from tristore.live.hints import TOLD, Hint, HintService
from tristore.live.listeners import SKEW_SECONDS, Listener
from tristore.settings import TristoreSettings
from tristore.testing.live import SELDOM
from tristore.testing.stores import Servers, real_redis, settings_on

NAME, CALLER = "things:1", "caller"


async def always() -> None:
    """A caller who may listen."""


class Things:
    """Numbers by key, all of one name and all moved lately. It can be down."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {"a": 1, "b": 2}
        self.ahead = 0
        """A poll shows so much more than there is."""
        self.is_down = False
        self.on_read: Callable[[], Awaitable[object]] = always
        self.asked_for: list[float] = []
        self.reads = 0

    async def _answer(self) -> None:
        await self.on_read()
        if self.is_down:
            raise StoreUnavailable("mongodb", "timeout")

    async def newest(self, name: str, limit: int) -> Collection[str]:
        found = list(self.of)[::-1][:limit]
        await self._answer()
        return found

    async def numbers(self, keys: Collection[str]) -> Mapping[str, int]:
        self.reads += 1
        await self._answer()
        return {key: self.of[key] for key in keys if self.of.get(key)}

    async def moved(self, names: Collection[str], seconds: float) -> Iterable[tuple[str, str, int]]:
        assert set(names) == {NAME}
        await self._answer()
        self.asked_for.append(seconds)
        return [(NAME, key, number + self.ahead) for key, number in self.of.items()]


@dataclass
class Served:
    live: HintService
    things: Things
    feed: Feed

    def listen(self) -> Any:
        return self.live.listen(NAME, caller=CALLER, verify=always)

    async def next(self, listener: Listener, count: int) -> list[Hint]:
        found: list[Hint] = []
        async with asyncio.timeout(5):
            async for hint in self.live.follow(listener):
                found += [hint] if hint else []
                if len(found) == count:
                    break
        return found


@asynccontextmanager
async def serving(servers: Servers, **changes: Any) -> AsyncIterator[Served]:
    async with real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)) as redis:
        things, feed = Things(), Feed(redis, CircuitBreaker("redis", 3, 1))
        live = HintService(things, feed=feed, **SELDOM | changes)
        live.start()  # the feed is not: no name comes from elsewhere
        yield Served(live, things, feed)
        await live.close()
        await feed.close()


async def test_what_moves_while_the_state_is_read_is_not_missed(servers: Servers) -> None:
    async with serving(servers) as served:

        async def move_once() -> None:
            served.things.on_read = always
            served.things.of["c"] = 7
            served.feed.send(f"{NAME}:c")

        served.things.on_read = move_once
        async with served.listen() as listener:
            assert set(await served.next(listener, 3)) == {Hint("a", 1), Hint("b", 2), Hint("c", 7)}


async def test_what_moves_while_a_client_is_slow_is_one_hint(servers: Servers) -> None:
    async with serving(servers) as served, served.listen() as listener:
        await served.next(listener, 2)
        for number in range(2, 50):
            served.things.of["a"] = number
            served.feed.send(f"{NAME}:a")
        served.things.of["b"] = 3
        served.feed.send(f"{NAME}:b")
        assert await served.next(listener, 2) == [Hint("a", 49), Hint("b", 3)]
        assert served.things.reads == 2


async def test_a_lost_wake_up_is_made_up_for_by_a_poll(servers: Servers) -> None:
    async with serving(servers, poll_seconds=0.05) as served, served.listen() as listener:
        await served.next(listener, 2)
        served.things.of["b"] = 3
        assert await served.next(listener, 1) == [Hint("b", 3)]
        assert served.live.counts["found_behind"] == 1


async def test_a_number_that_nothing_has_yet_is_looked_at_until_something_has_it(servers: Servers) -> None:
    async with serving(servers, poll_seconds=0.05) as served, served.listen() as listener:
        await served.next(listener, 2)
        served.things.ahead = 1  # somebody is about to write
        following = asyncio.create_task(served.next(listener, 1))
        while len(served.things.asked_for) < 4:
            await asyncio.sleep(0.01)
        assert not following.done()
        served.things.of["a"] = 2  # the number that was shown before
        assert await following == [Hint("a", 2)]


async def test_what_could_not_be_read_is_read_when_the_source_is_back(servers: Servers) -> None:
    async with serving(servers, poll_seconds=0.05) as served:
        served.things.is_down = True
        with pytest.raises(StoreUnavailable):
            async with served.listen():
                pass
        assert served.live.listening == 0
        served.things.is_down = False
        async with served.listen() as listener:
            await served.next(listener, 2)
            served.things.is_down = True
            served.things.of["gone"] = 5
            served.feed.send(f"{NAME}:gone")
            following = asyncio.create_task(served.next(listener, 1))
            while not served.live.counts["poll_failed"]:
                await asyncio.sleep(0.01)
            served.things.moved = nothing_moved  # type: ignore[method-assign]  # the outage was long: it moved before
            served.things.is_down = False
            assert await following == [Hint("gone", 5)]


async def nothing_moved(names: Collection[str], seconds: float) -> Iterable[tuple[str, str, int]]:
    return ()


async def test_a_poll_looks_back_to_the_last_one_that_succeeded_and_a_little_more(servers: Servers) -> None:
    async with serving(servers, poll_seconds=0.05) as served, served.listen():
        while not served.things.asked_for:
            await asyncio.sleep(0.01)
        assert SKEW_SECONDS < served.things.asked_for[0] < SKEW_SECONDS + 1
        served.things.is_down = True
        await asyncio.sleep(0.5)
        served.things.is_down = False
        before = len(served.things.asked_for)
        while len(served.things.asked_for) < before + 2:
            await asyncio.sleep(0.01)
        assert served.things.asked_for[before] > SKEW_SECONDS + 0.4
        assert served.things.asked_for[before + 1] < SKEW_SECONDS + 0.4


async def test_what_a_listener_remembers_is_bounded_and_some_hints_come_twice_then(servers: Servers) -> None:
    async with serving(servers) as served, served.listen() as listener:
        await served.next(listener, 2)
        for i in range(TOLD):
            served.things.of[f"k{i}"] = 1
            served.feed.send(f"{NAME}:k{i}")
        assert len(await served.next(listener, TOLD)) == TOLD
        served.feed.send(f"{NAME}:a")
        assert await served.next(listener, 1) == [Hint("a", 1)]
        assert len(served.live._states[listener].told) == 1


async def test_nothing_is_kept_of_a_listener_that_is_gone(servers: Servers) -> None:
    async with serving(servers) as served:
        async with served.listen() as listener:
            await served.next(listener, 2)
        assert len(served.live._states) == 0


def test_a_listener_remembers_more_than_it_begins_with() -> None:
    assert TOLD >= 2 * hints.NEWEST
