"""CacheRepository with a near cache, fed by a WakeUpRepository, on fakeredis and on Redis: the same bodies."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio.client import PubSub

from tests.tristore.contract.test_cache import Source
from tests.under_test import settings_for
from tristore.cache import feed as wake_up_repo
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import ALIVE_SECONDS, HEARD_SECONDS, WakeUpRepository
from tristore.cache.fence import FORMAT, CacheRepository, Versioned
from tristore.cache.near import Claim, NearCache
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore, beat, open_redis
from tristore.testing.proxy import proxy_to
from tristore.testing.stores import Servers, real_redis

LONG = 60.0
"""Seconds. A ceiling that no test reaches: what is seen earlier was not seen because of it."""


class WatchedCache(CacheRepository):
    """Notes which keys were read from Redis, and lets a test hold the answers back."""

    batches: list[list[str]]
    hold: Callable[[], Awaitable[object]] | None = None

    async def _read_many(self, keys: list[str]) -> list[bytes | None]:
        entries = await super()._read_many(keys)
        self.batches.append(keys)
        if self.hold:
            await self.hold()
        return entries


class Process:
    """Stands for an app process."""

    def __init__(self, redis: RedisStore, source: Source, entries: int, near: type[NearCache]) -> None:
        breaker = CircuitBreaker("redis", 1000, 0.01)
        self._source = source
        self.feed = WakeUpRepository(redis, breaker)
        self.near = near(entries, self.feed.is_alive)
        self.cache = WatchedCache(redis, breaker, near=self.near, feed=self.feed, lease_seconds=1)
        self.cache.batches = []
        self.pushed: list[str] = []
        self.subscribed = 0
        self._news = asyncio.Event()
        self.feed.listen(self._drop, self._clear)

    def _drop(self, names: Iterable[str]) -> None:
        keys = [name.removeprefix("cache:") for name in names]
        self.near.drop(keys)
        self.pushed += keys
        self._news.set()

    def _clear(self) -> None:
        self.near.clear()
        self.subscribed += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what the feed has brought makes it true."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def read(self, key: str, ceiling: float = LONG) -> int:
        body = await self.cache.get_or_load(key, self._source.loader(key), LONG, ceiling)
        return int(body or 0)

    async def write(self, key: str) -> None:
        """Commit, then invalidate."""
        self._source.versions[key] += 1
        await self.cache.invalidate(key, self._source.versions[key])

    async def warm(self, *keys: str, ceiling: float = LONG) -> None:
        """Read until the near cache has them."""
        for key in keys:
            self._source.versions.setdefault(key, 1)
            while self.near.get(key) is None:
                await self.read(key, ceiling)


@asynccontextmanager
async def running(
    redis: RedisStore, source: Source, entries: int = 1000, near: type[NearCache] = NearCache
) -> AsyncIterator[Process]:
    process = Process(replace(redis, subscriber=redis.client), source, entries, near)
    process.feed.start()
    await process.until(lambda: process.subscribed == 1)
    await asyncio.wait_for(process.feed.prove(), 5)
    yield process
    await process.cache.close()
    await process.feed.close()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def here(redis_store: RedisStore, source: Source) -> AsyncIterator[Process]:
    async with running(redis_store, source) as process:
        yield process


@pytest.fixture
async def there(redis_store: RedisStore, source: Source) -> AsyncIterator[Process]:
    async with running(redis_store, source) as process:
        yield process


def name_of(redis: RedisStore, key: str) -> str:
    return f"cache:{FORMAT}:{redis.identity.run_id}:{{{key}}}"


async def write_without_a_word(redis: RedisStore, key: str, version: int) -> None:
    """Change Redis' copy so that no process hears of it."""
    assert await redis.client.set(name_of(redis, key), b"v%d:%d" % (version, version), xx=True)


# Reads after writes


async def race(redis: RedisStore, source: Source, near: type[NearCache], steps: int) -> tuple[int, int]:
    """So many reads and writes of 20 keys in two processes. Returns how many reads were older than a write that had
    returned in their own process before they began, and how many reads the near caches answered."""
    keys = [f"k{i}" for i in range(20)]
    rng = random.Random(7)
    stale = 0

    async def answer_late() -> None:
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice([0, 0.001, 0.003]))

    async def act(process: Process, returned: Counter[str]) -> None:
        nonlocal stale
        for _ in range(steps // 80):
            key = rng.choice(keys)
            if rng.random() < 0.2:
                source.versions[key] += 1
                version = source.versions[key]
                await process.cache.invalidate(key, version)
                returned[key] = max(returned[key], version)
            else:
                expected = returned[key]
                stale += await process.read(key) < expected
            await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running(redis, source, near=near)) for _ in range(2)]
        source.versions.update(dict.fromkeys(keys, 1))
        for process in processes:
            process.cache.hold = answer_late
        seen: list[Counter[str]] = [Counter(), Counter()]
        await asyncio.gather(*(act(processes[i % 2], seen[i % 2]) for i in range(80)))
        return stale, sum(process.cache.counts["near"] for process in processes)


async def test_no_read_of_10_000_is_older_than_a_write_that_has_returned_in_its_process(
    redis_store: RedisStore, source: Source
) -> None:
    stale, near = await race(redis_store, source, NearCache, 10_000)
    assert (stale, near > 500) == (0, True)


async def test_an_entry_is_gone_also_when_redis_could_not_be_told(servers: Servers, source: Source) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_for(servers, redis_timeout=2)))
        here = await stack.enter_async_context(running(redis, source))
        await here.warm("a")
        await redis.client.client_pause(300, all=False)  # writes wait, reads do not
        impatient = CacheRepository(replace(redis, timeout=0.05), CircuitBreaker("redis", 3, 1), near=here.near)
        source.versions["a"] += 1
        with pytest.raises(StoreUnavailable):
            await impatient.invalidate("a", source.versions["a"])
        assert here.near.get("a") is None
        await redis.client.client_unpause()


async def test_what_was_loaded_and_stored_is_near_at_once(here: Process, source: Source) -> None:
    source.versions["a"] = 1
    assert await here.read("a") == 1
    assert here.near.get("a") == b"1"


async def test_what_was_loaded_and_not_stored_is_not_near(here: Process, source: Source) -> None:
    async def slow() -> Versioned:
        await asyncio.sleep(1.2)  # longer than the lease
        return Versioned(1, b"1")

    assert await here.cache.get_or_load("a", slow, LONG, LONG) == b"1"
    assert here.cache.counts["refused"] == 1
    assert here.near.get("a") is None


# Another process


async def test_another_process_drops_an_entry_as_soon_as_it_is_told(
    here: Process, there: Process, source: Source
) -> None:
    await there.warm("a", "b")
    await here.write("a")
    await there.until(lambda: there.pushed == ["a"])
    assert await there.read("a") == 2
    assert there.near.get("b") == b"1"


async def test_another_process_is_told_also_when_redis_has_the_new_value_already(
    redis_store: RedisStore, here: Process, there: Process, source: Source
) -> None:
    await there.warm("a")
    await redis_store.client.delete(name_of(redis_store, "a"))  # its time has ended
    source.versions["a"] = 2
    assert await here.read("a") == 2  # before the writer comes to say so
    assert await there.read("a") == 1
    await here.cache.invalidate("a", 2)
    await there.until(lambda: there.pushed == ["a"])
    assert await there.read("a") == 2


@pytest.mark.parametrize("loaded", [False, True], ids=["read from Redis", "loaded"])
async def test_without_a_push_an_entry_is_served_no_longer_than_its_ceiling_after_it_was_read(
    redis_store: RedisStore, there: Process, source: Source, loaded: bool
) -> None:
    near = 0.4
    ceiling = 2 * near if loaded else near
    if not loaded:
        await there.warm("a")
        there.near.clear()
    source.versions["a"] = 1
    await there.read("a", near)
    read_at = served_at = time.monotonic()
    await write_without_a_word(redis_store, "a", 2)
    while True:
        asked_at = time.monotonic()
        if await there.read("a", near) == 2:
            break
        served_at = asked_at
        await asyncio.sleep(0)
    assert ceiling - near <= served_at - read_at < ceiling
    assert there.pushed == []


class NotingNear(NearCache):
    ceilings: list[float]

    def keep(self, key: str, claim: Claim, body: bytes, ceiling: float) -> None:
        self.ceilings.append(ceiling)
        super().keep(key, claim, body, ceiling)


async def test_what_was_loaded_stays_no_longer_than_if_it_had_been_read_from_redis_at_its_last_moment(
    redis_store: RedisStore, source: Source
) -> None:
    NotingNear.ceilings = []
    source.versions["a"] = 1
    async with running(redis_store, source, near=NotingNear) as process:
        await process.cache.get_or_load("a", source.loader("a"), ttl=2, near=10)
        assert await process.read("a") == 1
    assert NotingNear.ceilings == [12]


# Claims


async def test_an_answer_under_way_when_its_key_changes_is_not_kept(
    here: Process, there: Process, source: Source
) -> None:
    await there.warm("a")
    there.near.clear()
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        has_read.set()
        await may_answer.wait()

    there.cache.hold = hold
    early = asyncio.ensure_future(there.read("a"))
    await has_read.wait()
    await here.write("a")
    await there.until(lambda: there.pushed == ["a"])
    may_answer.set()
    assert await early == 1
    assert there.near.get("a") is None
    assert await there.read("a") == 2


# The feed


async def test_nothing_is_served_from_before_a_new_subscription(servers: Servers, source: Source) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_for(servers, redis_timeout=2)))
        there = await stack.enter_async_context(running(redis, source))
        await there.warm("a")
        await write_without_a_word(redis, "a", 2)
        assert await there.read("a") == 1
        await redis.client.client_kill_filter(_type="pubsub")
        await there.until(lambda: there.subscribed == 2)
        assert await there.read("a") == 2
        await there.warm("a")  # and it works again


async def test_until_the_first_heartbeat_redis_is_not_believed(redis_store: RedisStore, source: Source) -> None:
    source.versions["a"] = 1
    async with running(redis_store, source) as there:
        await there.warm("a")
    process = Process(redis_store, source, 1000, NearCache)  # not subscribed
    source.versions["a"] = 2
    assert await process.read("a") == 2
    assert process.cache.batches == []


async def test_entries_outlive_the_time_in_which_redis_must_answer_also_while_the_feed_never_rests(
    here: Process, there: Process
) -> None:
    await there.warm("a")
    version, started = 0, time.monotonic()
    while time.monotonic() - started < 1.5 * ALIVE_SECONDS:
        version += 1
        await here.cache.invalidate("b", version)
        assert there.near.get("a") == b"1"
    assert there.pushed.count("b") > 10


async def test_entries_outlive_heartbeats_that_a_busy_loop_sends_late(
    there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*arguments: Any) -> None:
        await asyncio.sleep(0.35)
        await beat(*arguments)

    await there.warm("a")
    monkeypatch.setattr(wake_up_repo, "beat", late)
    started = time.monotonic()
    while time.monotonic() - started < 2.5 * ALIVE_SECONDS:
        assert there.near.get("a") == b"1"
        await asyncio.sleep(0.01)


async def test_entries_outlive_one_heartbeat_that_comes_late(there: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later than the next one is due, and within the second that it has: nothing need be forgotten."""
    get_message = PubSub.get_message
    held, due, given = None, math.inf, asyncio.Event()

    async def late(pubsub: PubSub, timeout: float) -> Any:
        nonlocal held, due
        until = time.monotonic() + timeout
        if held is None:
            message = await get_message(pubsub, timeout=timeout)
            if not message or b"beat:" not in (message["data"] if message["type"] == "message" else b""):
                return message
            held, due = message, time.monotonic() + 0.7
        elif given.is_set():
            return await get_message(pubsub, timeout=timeout)
        await asyncio.sleep(min(due, until) - time.monotonic())
        if until < due:
            return None
        given.set()
        return held

    await there.warm("a")
    monkeypatch.setattr(PubSub, "get_message", late)
    await asyncio.wait_for(given.wait(), 3)
    await asyncio.sleep(0.05)
    assert there.near.get("a") == b"1"


# What Redis was not told


async def test_an_entry_older_than_what_this_process_wrote_is_not_believed(
    redis_store: RedisStore, here: Process, source: Source
) -> None:
    source.versions["a"] = 1
    await here.read("a")
    source.versions["a"] = 2
    here.cache.require("a", 2)  # as an invalidation does that does not get through
    assert await here.read("a") == 2
    assert here.cache.counts["outdated"] == 1
    await here.cache.invalidate("a", 2)
    await here.read("a")
    assert await redis_store.client.get(name_of(redis_store, "a")) == b"v2:2"


async def test_an_answer_that_was_given_before_an_invalidation_got_through_is_not_believed_after_it(
    here: Process, source: Source
) -> None:
    source.versions["a"] = 1
    await here.read("a")
    here.near.clear()
    source.versions["a"] = 2
    here.cache.require("a", 2)
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        has_read.set()
        await may_answer.wait()

    here.cache.hold = hold
    late = asyncio.ensure_future(here.read("a"))
    await has_read.wait()
    source.versions["a"] = 3
    await here.cache.invalidate("a", 3)
    may_answer.set()
    assert await late == 3


async def test_a_change_is_acknowledged_by_every_process_that_lives(
    here: Process, there: Process, source: Source
) -> None:
    await there.warm("a")
    source.versions["a"] = 2
    await here.cache.invalidate("a", 2, heard=True)
    started = time.monotonic()
    await here.cache.wait_until_heard(["a"])
    assert there.near.get("a") is None
    assert there.pushed == ["a"]
    assert time.monotonic() - started < HEARD_SECONDS / 2


async def test_a_process_that_does_not_acknowledge_believes_nothing_when_the_wait_is_over(
    servers: Servers, source: Source
) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_for(servers, redis_timeout=2)))
        proxy = await stack.enter_async_context(proxy_to(servers["redis"].port))
        dsn = servers["redis"].dsn.replace(str(servers["redis"].port), str(proxy.port))
        behind = await stack.enter_async_context(open_redis(settings_for(servers, redis_dsn=dsn)))
        here = await stack.enter_async_context(running(redis, source))
        there = await stack.enter_async_context(running(behind, source))
        await there.warm("a")
        proxy.black_hole = True
        source.versions["a"] = 2
        await here.cache.invalidate("a", 2, heard=True)
        await here.cache.wait_until_heard(["a"])
        assert there.near.get("a") is None
        assert await there.read("a") == 2
        assert there.pushed == []


async def test_a_redis_that_refuses_writes_is_not_believed(servers: Servers, source: Source) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_for(servers, redis_timeout=2)))
        there = await stack.enter_async_context(running(redis, source))
        await there.warm("a")
        await redis.client.config_set("min-replicas-to-write", 1)
        try:
            source.versions["a"] = 2
            async with asyncio.timeout(5):
                while await there.read("a") != 2:
                    await asyncio.sleep(0.02)
            with pytest.raises(StoreUnavailable, match="refuses writes"):
                await there.feed.prove()
        finally:
            await redis.client.config_set("min-replicas-to-write", 0)
        async with asyncio.timeout(5):
            while not there.feed.is_alive():
                await asyncio.sleep(0.02)
        assert there.subscribed == 1  # the subscription has stayed
