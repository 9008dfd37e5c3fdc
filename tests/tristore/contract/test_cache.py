"""FencedCache on fakeredis, Redis and a cluster: the same bodies."""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
from redis.commands.core import AsyncScript

from tristore.cache.announcement import Announcement
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned, entry_of
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.errors import StoreUnavailable
from tristore.stores.hosts import Connection
from tristore.stores.lineage import Lineage
from tristore.stores.redis import RedisStore
from tristore.testing.cache import Rows
from tristore.testing.stores import begin_another_history


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def cache(redis_store: RedisStore) -> FencedCache:
    return make_cache(redis_store)


def make_cache(redis_store: RedisStore, fence: type[Fence] = Fence, lease_seconds: float = 3) -> FencedCache:
    return FencedCache(fence(redis_store, CircuitBreaker("redis", 3, 1), lease_seconds=lease_seconds))


async def test_loads_once_and_then_serves_the_same_bytes(cache: FencedCache, rows: Rows) -> None:
    rows.versions["a"] = 1
    answers = [await cache.get_or_load("a", rows.loader("a"), 60) for _ in range(3)]
    assert answers == [b"1"] * 3
    assert rows.loads["a"] == 1


async def test_remembers_for_a_while_that_something_does_not_exist(cache: FencedCache, rows: Rows) -> None:
    assert await cache.get_or_load("a", rows.loader("a"), 60) is None
    assert await cache.get_or_load("a", rows.loader("a"), 60) is None
    assert rows.loads["a"] == 1


async def test_what_did_not_exist_is_seen_once_it_was_written(cache: FencedCache, rows: Rows) -> None:
    await cache.get_or_load("a", rows.loader("a"), 60)
    rows.versions["a"] = 1
    await cache.invalidate("a", 1)
    assert await cache.get_or_load("a", rows.loader("a"), 60) == b"1"


async def test_one_load_for_many_concurrent_readers_of_two_processes(redis_store: RedisStore, rows: Rows) -> None:
    rows.versions["a"] = 1
    rows.delay = lambda: 0.05
    processes = [make_cache(redis_store), make_cache(redis_store)]
    reads = [processes[i % 2].get_or_load("a", rows.loader("a"), 60) for i in range(400)]
    assert set(await asyncio.gather(*reads)) == {b"1"}
    assert rows.loads["a"] == 1


async def test_a_fill_is_refused_after_a_write(cache: FencedCache, rows: Rows) -> None:
    token = await cache.lease("a")
    assert token
    await cache.invalidate("a", 2)
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)
    rows.versions["a"] = 2
    assert await cache.get_or_load("a", rows.loader("a"), 60) == b"2"


async def test_a_fill_is_refused_after_a_flush(cache: FencedCache, redis_store: RedisStore) -> None:
    token = await cache.lease("a")
    assert token
    await cache.invalidate("a", 2)
    await redis_store.client.flushall()
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)


async def test_a_fill_is_refused_after_its_lease_has_ended(redis_store: RedisStore) -> None:
    cache = make_cache(redis_store, lease_seconds=0.05)
    token = await cache.lease("a")
    assert token
    await asyncio.sleep(0.1)
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)


async def test_a_late_write_does_not_undo_a_newer_fill(cache: FencedCache, rows: Rows) -> None:
    rows.versions["a"] = 3
    await cache.get_or_load("a", rows.loader("a"), 60)
    await cache.invalidate("a", 2)
    await cache.invalidate("a", 3)
    assert await cache.get_or_load("a", rows.loader("a"), 60) == b"3"
    assert rows.loads["a"] == 1


async def test_a_fill_older_than_a_tombstone_is_refused(cache: FencedCache) -> None:
    await cache.invalidate("a", 5)
    token = await cache.lease("a")
    assert token
    assert not await cache.fill("a", token, Versioned(4, b"4"), 60)


async def test_a_reader_that_starts_after_a_write_does_not_join_a_load_from_before(
    cache: FencedCache, rows: Rows
) -> None:
    has_read, may_store = asyncio.Event(), asyncio.Event()

    async def load_first() -> Versioned:
        has_read.set()
        await may_store.wait()
        return Versioned(1, b"1")

    early = asyncio.ensure_future(cache.get_or_load("a", load_first, 60))
    await has_read.wait()
    rows.versions["a"] = 2
    await cache.invalidate("a", 2)
    asyncio.get_running_loop().call_later(0.05, may_store.set)  # by then the next reader waits for that load
    late = await cache.get_or_load("a", rows.loader("a"), 60)
    assert (await early, late) == (b"1", b"2")


async def test_a_failed_load_gives_its_lease_back(cache: FencedCache, rows: Rows) -> None:
    async def fail() -> Versioned | None:
        raise ZeroDivisionError

    rows.versions["a"] = 1
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("a", fail, 60)
    async with asyncio.timeout(1):
        assert await cache.get_or_load("a", rows.loader("a"), 60) == b"1"


async def test_values_end_with_their_time(cache: FencedCache, rows: Rows) -> None:
    rows.versions["a"] = 1
    await cache.get_or_load("a", rows.loader("a"), 0.05)
    await asyncio.sleep(0.1)
    await cache.get_or_load("a", rows.loader("a"), 60)
    assert rows.loads["a"] == 2


async def test_a_redis_that_was_restarted_is_an_empty_cache(
    cache: FencedCache, redis_store: RedisStore, rows: Rows
) -> None:
    rows.versions["a"] = 1
    await cache.get_or_load("a", rows.loader("a"), 60)
    begin_another_history(redis_store)
    rows.versions["a"] = 2
    assert await cache.get_or_load("a", rows.loader("a"), 60) == b"2"


async def test_a_write_during_which_postgresql_failed_over_reaches_the_new_history(
    redis_store: RedisStore, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Lineage(), Lineage()
    old.name, new.name = "old", "new"
    breaker = CircuitBreaker("redis", 3, 1)
    writer, reader = (FencedCache(Fence(replace(redis_store, timeout=2), breaker, lineage=of)) for of in (old, new))
    rows.versions["a"] = 1
    await reader.get_or_load("a", rows.loader("a"), 60)
    rows.versions["a"] = 2
    run_script = AsyncScript.__call__

    async def run_under_the_old_name(script: AsyncScript, **arguments: Any) -> Any:
        answer = await run_script(script, **arguments)
        old.name = "new"
        return answer

    monkeypatch.setattr(AsyncScript, "__call__", run_under_the_old_name)
    await writer.invalidate("a", 2)
    assert await reader.get_or_load("a", rows.loader("a"), 60) == b"2"


async def test_for_a_while_after_a_failover_a_write_also_reaches_who_has_not_learned_of_it(
    redis_store: RedisStore, rows: Rows
) -> None:
    told, untold = Lineage(), Lineage()
    told.name = untold.name = "old"
    breaker = CircuitBreaker("redis", 3, 1)
    writer, reader = (FencedCache(Fence(redis_store, breaker, lineage=of)) for of in (told, untold))
    rows.versions["a"] = 1
    await reader.get_or_load("a", rows.loader("a"), 60)
    await told.learn(cast(Connection, Answering("new")))
    rows.versions["a"] = 2
    await writer.invalidate("a", 2)
    assert await reader.get_or_load("a", rows.loader("a"), 60) == b"2"


class Answering:
    """Stands for a connection to PostgreSQL."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def fetchval(self, _: str) -> str:
        return self._name


class ToldLate(Fence):
    """Hears only when it may that a fill was stored."""

    def __init__(self, redis: RedisStore, breaker: CircuitBreaker) -> None:
        super().__init__(redis, breaker)
        self.stored, self.may_hear = asyncio.Event(), asyncio.Event()

    async def fill(self, key: str, token: str, found: Versioned | None, seconds: float) -> bool:
        stored = await super().fill(key, token, found, seconds)
        self.stored.set()
        await self.may_hear.wait()
        return stored


async def test_a_reader_after_a_write_does_not_join_a_load_that_was_stored_before_it(
    redis_store: RedisStore, rows: Rows
) -> None:
    fence = ToldLate(redis_store, CircuitBreaker("redis", 3, 1))
    cache = FencedCache(fence)
    rows.versions["a"] = 1
    early = asyncio.create_task(cache.get_or_load("a", rows.loader("a"), 60))
    await fence.stored.wait()
    rows.versions["a"] = 2
    await cache.invalidate("a", 2)
    late = asyncio.create_task(cache.get_or_load("a", rows.loader("a"), 60))
    await asyncio.sleep(0.1)  # it has joined
    fence.may_hear.set()
    assert (await early, await late) == (b"1", b"2")


class DeletesOnly(Fence):
    """What most caches do: a write deletes, a fill sets."""

    async def invalidate(self, key: str, version: int, announcement: Announcement | None) -> int:
        await self._call(key, lambda client, keys: client.delete(keys[0]))
        return 0

    async def fill(self, key: str, token: str, found: Versioned | None, seconds: float) -> bool:
        await self._call(key, lambda client, keys: client.set(keys[0], entry_of(found), px=int(seconds * 1000)))
        await self.release(key, token)
        return True


async def race(redis_store: RedisStore, rows: Rows, fence: type[Fence]) -> tuple[int, int]:
    """Fills and writes over 300 keys from two processes, TTLs ending, the server flushed. Returns how many reads were
    older than a write acknowledged before they began, and how many keys are stale when all is quiet."""
    keys = [f"k{i}" for i in range(300)]
    processes = [make_cache(redis_store, fence), make_cache(redis_store, fence)]
    acknowledged: Counter[str] = Counter()
    too_old = 0
    rng = random.Random(7)
    rows.delay = lambda: rng.choice([0, 0, 0.001, 0.01])
    rows.versions.update(dict.fromkeys(keys, 1))

    async def read(key: str) -> None:
        nonlocal too_old
        expected = acknowledged[key]
        ttl = rng.choice([0.005, 0.02, 60])
        body = await rng.choice(processes).get_or_load(key, rows.loader(key), ttl)
        too_old += body is None or int(body) < expected

    async def write(key: str) -> None:
        rows.versions[key] += 1
        version = rows.versions[key]
        await asyncio.sleep(rows.delay())
        await rng.choice(processes).invalidate(key, version)
        acknowledged[key] = max(acknowledged[key], version)

    async def act() -> None:
        for _ in range(60):
            key = rng.choice(keys if rng.random() < 0.3 else keys[:20])
            await (write(key) if rng.random() < 0.3 else asyncio.gather(read(key), read(key)))

    async def flush() -> None:
        for _ in range(6):
            await asyncio.sleep(0.05)
            await redis_store.client.flushall()

    await asyncio.gather(flush(), *(act() for _ in range(40)))
    rows.delay = lambda: 0
    final = [await rng.choice(processes).get_or_load(key, rows.loader(key), 60) for key in keys]
    stale = sum(body != str(rows.versions[key]).encode() for key, body in zip(keys, final, strict=True))
    return too_old, stale


async def test_no_read_is_stale_in_a_race_of_fills_writes_and_flushes(redis_store: RedisStore, rows: Rows) -> None:
    assert await race(redis_store, rows, Fence) == (0, 0)


async def test_the_race_catches_a_cache_that_only_deletes(redis_store: RedisStore, rows: Rows) -> None:
    found = 0
    for _ in range(5):  # on a busy machine one race in many finds nothing
        if found := sum(await race(redis_store, rows, DeletesOnly)):
            break
    assert found


async def test_without_redis_many_readers_of_a_key_load_it_twice(cache: FencedCache, rows: Rows) -> None:
    open_breaker(cache)
    rows.versions["a"], rows.delay = 1, lambda: 0.01
    first = asyncio.ensure_future(cache.get_or_load("a", rows.loader("a"), 60))
    await asyncio.sleep(0)
    bodies = await asyncio.gather(*(cache.get_or_load("a", rows.loader("a"), 60) for _ in range(500)))
    assert {await first, *bodies} == {b"1"}
    assert rows.loads["a"] == 2


async def test_without_redis_a_reader_that_starts_after_a_write_does_not_join_a_load_from_before(
    cache: FencedCache, rows: Rows
) -> None:
    open_breaker(cache)
    may_answer = asyncio.Event()

    async def load_first() -> Versioned:
        await may_answer.wait()
        return Versioned(1, b"1")

    early = asyncio.ensure_future(cache.get_or_load("a", load_first, 60))
    await asyncio.sleep(0)
    rows.versions["a"] = 2
    late = [asyncio.ensure_future(cache.get_or_load("a", rows.loader("a"), 60)) for _ in range(2)]
    await asyncio.sleep(0)
    late[0].cancel()  # the others' load does not end with whoever began it
    may_answer.set()
    assert (await early, await late[1]) == (b"1", b"2")


async def test_without_redis_a_failed_load_is_tried_again_by_the_next(cache: FencedCache, rows: Rows) -> None:
    open_breaker(cache)
    rows.versions["a"] = 1

    async def fail() -> Versioned:
        raise StoreUnavailable("postgresql", "timeout")

    first = asyncio.ensure_future(cache.get_or_load("a", fail, 60))
    await asyncio.sleep(0)
    assert await cache.get_or_load("a", rows.loader("a"), 60) == b"1"
    with pytest.raises(StoreUnavailable):
        await first


def open_breaker(cache: FencedCache) -> None:
    cache._fence.breaker.count(StoreUnavailable("redis", "timeout"), 1000)
