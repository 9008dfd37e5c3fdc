"""FencedCache with a near cache and a feed, on fakeredis, Redis and a cluster: the same bodies."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio.client import PubSub

from tristore.cache import feed
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned, keys_of
from tristore.cache.feed import ALIVE_KEY, ALIVE_SECONDS, HEARD_SECONDS
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.cache.near import Claim, NearCache
from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, beat, open_redis
from tristore.testing.cache import LONG, Process, Rows, running
from tristore.testing.proxy import proxy_to
from tristore.testing.stores import Servers, real_redis, server_of, settings_on


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def here(redis_store: RedisStore, rows: Rows) -> AsyncIterator[Process]:
    async with running(redis_store, rows) as process:
        yield process


@pytest.fixture
async def there(redis_store: RedisStore, rows: Rows) -> AsyncIterator[Process]:
    async with running(redis_store, rows) as process:
        yield process


def name_of(redis: RedisStore, key: str) -> str:
    return keys_of(key, 1, server_of(redis, key).identity.history)[0]


async def write_without_a_word(redis: RedisStore, key: str, version: int) -> None:
    """Change Redis' copy so that no process hears of it."""
    assert await redis.client.set(name_of(redis, key), b"v%d:%d" % (version, version), xx=True)


# Reads after writes


async def race(redis: RedisStore, rows: Rows, near: type[NearCache], steps: int) -> tuple[int, int]:
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
                rows.versions[key] += 1
                version = rows.versions[key]
                await process.cache.invalidate(key, version)
                returned[key] = max(returned[key], version)
            else:
                expected = returned[key]
                stale += await process.read(key) < expected
            await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running(redis, rows, near=near)) for _ in range(2)]
        rows.versions.update(dict.fromkeys(keys, 1))
        for process in processes:
            process.fence.hold = answer_late
        seen: list[Counter[str]] = [Counter(), Counter()]
        await asyncio.gather(*(act(processes[i % 2], seen[i % 2]) for i in range(80)))
        return stale, sum(process.cache.counts["near"] for process in processes)


async def test_no_read_of_10_000_is_older_than_a_write_that_has_returned_in_its_process(
    redis_store: RedisStore, rows: Rows
) -> None:
    stale, near_reads = await race(redis_store, rows, NearCache, 10_000)
    assert (stale, near_reads > 500) == (0, True)


async def test_an_entry_is_gone_also_when_redis_could_not_be_told(servers: Servers, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        here = await stack.enter_async_context(running(redis, rows))
        await here.warm("a")
        await redis.client.client_pause(300, all=False)  # writes wait, reads do not
        fence = Fence(replace(redis, timeout=0.05), CircuitBreaker("redis", 3, 1))
        impatient = FencedCache(fence, near=here.near)
        rows.versions["a"] += 1
        with pytest.raises(StoreUnavailable):
            await impatient.invalidate("a", rows.versions["a"])
        assert here.near.get("a") is None
        await redis.client.client_unpause()


async def test_what_was_loaded_and_stored_is_near_at_once(here: Process, rows: Rows) -> None:
    rows.versions["a"] = 1
    assert await here.read("a") == 1
    assert here.near.get("a") == b"1"


async def test_what_was_loaded_and_not_stored_is_not_near(here: Process, rows: Rows) -> None:
    async def slow() -> Versioned:
        await asyncio.sleep(1.2)  # longer than the lease
        return Versioned(1, b"1")

    assert await here.cache.get_or_load("a", slow, LONG, LONG) == b"1"
    assert here.cache.counts["refused"] == 1
    assert here.near.get("a") is None


# Another process


async def test_another_process_drops_an_entry_as_soon_as_it_is_told(here: Process, there: Process, rows: Rows) -> None:
    await there.warm("a", "b")
    await here.write("a")
    await there.until(lambda: there.told == ["a"])
    assert await there.read("a") == 2
    assert there.near.get("b") == b"1"


async def test_another_process_is_told_also_when_redis_has_the_new_value_already(
    redis_store: RedisStore, here: Process, there: Process, rows: Rows
) -> None:
    await there.warm("a")
    await redis_store.client.delete(name_of(redis_store, "a"))  # its time has ended
    rows.versions["a"] = 2
    assert await here.read("a") == 2  # before the writer comes to say so
    assert await there.read("a") == 1
    await here.cache.invalidate("a", 2)
    await there.until(lambda: there.told == ["a"])
    assert await there.read("a") == 2


@pytest.mark.parametrize("loaded", [False, True], ids=["read from Redis", "loaded"])
async def test_without_a_push_an_entry_is_served_no_longer_than_its_ceiling_after_it_was_read(
    redis_store: RedisStore, there: Process, rows: Rows, loaded: bool
) -> None:
    near_seconds = 0.4
    ceiling = 2 * near_seconds if loaded else near_seconds
    if not loaded:
        await there.warm("a")
        there.near.clear()
    rows.versions["a"] = 1
    await there.read("a", near_seconds)
    read_at = served_at = time.monotonic()
    await write_without_a_word(redis_store, "a", 2)
    while True:
        asked_at = time.monotonic()
        if await there.read("a", near_seconds) == 2:
            break
        served_at = asked_at
        await asyncio.sleep(0)
    assert ceiling - near_seconds <= served_at - read_at < ceiling
    assert there.told == []


class NotingNear(NearCache):
    ceilings: list[float]

    def keep(self, key: str, claim: Claim, body: bytes, ceiling_seconds: float) -> None:
        self.ceilings.append(ceiling_seconds)
        super().keep(key, claim, body, ceiling_seconds)


async def test_what_was_loaded_stays_no_longer_than_if_it_had_been_read_from_redis_at_its_last_moment(
    redis_store: RedisStore, rows: Rows
) -> None:
    NotingNear.ceilings = []
    rows.versions["a"] = 1
    async with running(redis_store, rows, near=NotingNear) as process:
        await process.cache.get_or_load("a", rows.loader("a"), ttl_seconds=2, near_seconds=10)
        assert await process.read("a") == 1
    assert NotingNear.ceilings == [12]


# Claims


async def test_an_answer_under_way_when_its_key_changes_is_not_kept(here: Process, there: Process, rows: Rows) -> None:
    await there.warm("a")
    there.near.clear()
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        has_read.set()
        await may_answer.wait()

    there.fence.hold = hold
    early = asyncio.ensure_future(there.read("a"))
    await has_read.wait()
    await here.write("a")
    await there.until(lambda: there.told == ["a"])
    may_answer.set()
    assert await early == 1
    assert there.near.get("a") is None
    assert await there.read("a") == 2


# The feed


async def test_nothing_is_served_from_before_a_new_subscription(servers: Servers, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        there = await stack.enter_async_context(running(redis, rows))
        await there.warm("a")
        await write_without_a_word(redis, "a", 2)
        assert await there.read("a") == 1
        await redis.client.client_kill_filter(_type="pubsub")
        await there.until(lambda: there.subscribed == 2)
        assert await there.read("a") == 2
        await there.warm("a")  # and it works again


async def test_until_the_first_heartbeat_redis_is_not_believed(redis_store: RedisStore, rows: Rows) -> None:
    rows.versions["a"] = 1
    async with running(redis_store, rows) as there:
        await there.warm("a")
    process = Process(redis_store, rows)  # not subscribed
    rows.versions["a"] = 2
    assert await process.read("a") == 2
    assert process.fence.batches == []


async def test_entries_outlive_the_time_in_which_redis_must_answer_also_while_the_feed_never_rests(
    here: Process, there: Process
) -> None:
    await there.warm("a")
    version, started = 0, time.monotonic()
    while time.monotonic() - started < 1.5 * ALIVE_SECONDS:
        version += 1
        await here.cache.invalidate("b", version)
        await asyncio.sleep(0)  # fakeredis may answer at once, and let nothing else run
        assert there.near.get("a") == b"1"
    assert there.told.count("b") > 10


async def test_entries_outlive_heartbeats_that_a_busy_loop_sends_late(
    there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*arguments: Any) -> bool:
        await asyncio.sleep(0.35)
        return await beat(*arguments)

    await there.warm("a")
    monkeypatch.setattr(feed, "beat", late)
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
    redis_store: RedisStore, here: Process, rows: Rows
) -> None:
    rows.versions["a"] = 1
    await here.read("a")
    rows.versions["a"] = 2
    here.cache.require("a", 2)  # as an invalidation does that does not get through
    assert await here.read("a") == 2
    assert here.cache.counts["outdated"] == 1
    await here.cache.invalidate("a", 2)
    await here.read("a")
    assert await redis_store.client.get(name_of(redis_store, "a")) == b"v2:2"


async def test_an_answer_that_was_given_before_an_invalidation_got_through_is_not_believed_after_it(
    here: Process, rows: Rows
) -> None:
    rows.versions["a"] = 1
    await here.read("a")
    here.near.clear()
    rows.versions["a"] = 2
    here.cache.require("a", 2)
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        has_read.set()
        await may_answer.wait()

    here.fence.hold = hold
    late = asyncio.ensure_future(here.read("a"))
    await has_read.wait()
    rows.versions["a"] = 3
    await here.cache.invalidate("a", 3)
    may_answer.set()
    assert await late == 3


async def test_a_change_is_acknowledged_by_every_process_that_lives(
    redis_store: RedisStore, here: Process, there: Process, rows: Rows
) -> None:
    await there.warm("a")
    if redis_store.cluster:
        await asyncio.sleep(2 * ALIVE_SECONDS)  # until then its servers may have taken over from others
    rows.versions["a"] = 2
    await here.cache.invalidate("a", 2, heard=True)
    started = time.monotonic()
    await here.cache.wait_until_heard(["a"])
    assert there.near.get("a") is None
    assert there.told == ["a"]
    assert time.monotonic() - started < HEARD_SECONDS / 2


async def test_a_process_that_does_not_acknowledge_believes_nothing_when_the_wait_is_over(
    servers: Servers, rows: Rows
) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        proxy = await stack.enter_async_context(proxy_to(servers["redis"].port))
        dsn = servers["redis"].dsn.replace(str(servers["redis"].port), str(proxy.port))
        behind = await stack.enter_async_context(open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn)))
        here = await stack.enter_async_context(running(redis, rows))
        there = await stack.enter_async_context(running(behind, rows))
        await there.warm("a")
        proxy.black_hole = True
        rows.versions["a"] = 2
        await here.cache.invalidate("a", 2, heard=True)
        await here.cache.wait_until_heard(["a"])
        assert there.near.get("a") is None
        assert await there.read("a") == 2
        assert there.told == []


@asynccontextmanager
async def one_that_does_not_see_its_connection_end(
    servers: Servers, rows: Rows
) -> AsyncIterator[tuple[RedisStore, Process, Process]]:
    """Two processes. Redis has ended the subscriptions of both, and the second one does not know it yet."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        proxy = await stack.enter_async_context(proxy_to(servers["redis"].port))
        dsn = servers["redis"].dsn.replace(str(servers["redis"].port), str(proxy.port))
        behind = await stack.enter_async_context(open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn)))
        here = await stack.enter_async_context(running(redis, rows))
        there = await stack.enter_async_context(running(behind, rows))
        await there.warm("a")
        proxy.hide_ends = True
        rows.versions["a"] = 2
        await redis.client.client_kill_filter(_type="pubsub")
        yield redis, here, there


async def test_a_process_that_redis_counts_no_more_believes_nothing_when_the_wait_is_over(
    servers: Servers, rows: Rows
) -> None:
    async with one_that_does_not_see_its_connection_end(servers, rows) as (_, here, there):
        await here.until(lambda: here.subscribed == 2)
        await here.cache.invalidate("a", 2, heard=True)
        await here.cache.wait_until_heard(["a"])
        assert there.near.get("a") is None
        assert there.told == []


async def test_a_process_that_is_not_subscribed_itself_waits_for_the_others(servers: Servers, rows: Rows) -> None:
    async with one_that_does_not_see_its_connection_end(servers, rows) as (_, here, there):
        await here.cache.invalidate("a", 2, heard=True)
        await here.cache.wait_until_heard(["a"])
        assert there.near.get("a") is None


async def test_a_redis_that_may_have_become_the_primary_is_not_asked_who_lives(servers: Servers, rows: Rows) -> None:
    async with one_that_does_not_see_its_connection_end(servers, rows) as (redis, here, there):
        await here.until(lambda: here.subscribed == 2)
        await redis.client.zrem(ALIVE_KEY, *await redis.client.zrange(ALIVE_KEY, 0, -1))  # as one that was behind
        await here.cache.invalidate("a", 2, heard=True)
        await here.cache.wait_until_heard(["a"])
        assert there.near.get("a") is None


async def test_nobody_waits_for_a_process_that_has_ended(servers: Servers, rows: Rows) -> None:
    """On a real Redis: the fake counts a subscriber for ever."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        here = await stack.enter_async_context(running(redis, rows))
        async with running(redis, rows) as there:
            await there.warm("a")
        await here.cache.invalidate("a", 2, heard=True)
        started = time.monotonic()
        await here.cache.wait_until_heard(["a"])
        assert time.monotonic() - started < HEARD_SECONDS / 2


async def test_a_redis_that_refuses_writes_is_not_believed(servers: Servers, rows: Rows) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(real_redis(settings_on(servers, TristoreSettings, redis_timeout=2)))
        there = await stack.enter_async_context(running(redis, rows))
        await there.warm("a")
        await redis.client.config_set("min-replicas-to-write", 1)
        try:
            rows.versions["a"] = 2
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
