"""CacheRepository on fakeredis and on Redis: the same bodies."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.fence import CacheRepository, Load, Versioned
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore, ServerIdentity


class Source:
    """Stands for PostgreSQL: the committed version of each key."""

    def __init__(self) -> None:
        self.versions: Counter[str] = Counter()
        self.loads: Counter[str] = Counter()
        self.delay: Callable[[], float] = lambda: 0

    def loader(self, key: str) -> Load:
        async def load() -> Versioned | None:
            self.loads[key] += 1
            await asyncio.sleep(self.delay())
            version = self.versions[key]
            await asyncio.sleep(self.delay())
            return Versioned(version, str(version).encode()) if version else None

        return load


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(redis_store: RedisStore) -> CacheRepository:
    return make_cache(redis_store)


def make_cache(redis_store: RedisStore, cls: type[CacheRepository] = CacheRepository) -> CacheRepository:
    return cls(redis_store, CircuitBreaker("redis", 3, 1))


async def test_loads_once_and_then_serves_the_same_bytes(cache: CacheRepository, source: Source) -> None:
    source.versions["a"] = 1
    answers = [await cache.get_or_load("a", source.loader("a"), 60) for _ in range(3)]
    assert answers == [b"1"] * 3
    assert source.loads["a"] == 1


async def test_remembers_for_a_while_that_something_does_not_exist(cache: CacheRepository, source: Source) -> None:
    assert await cache.get_or_load("a", source.loader("a"), 60) is None
    assert await cache.get_or_load("a", source.loader("a"), 60) is None
    assert source.loads["a"] == 1


async def test_what_did_not_exist_is_seen_once_it_was_written(cache: CacheRepository, source: Source) -> None:
    await cache.get_or_load("a", source.loader("a"), 60)
    source.versions["a"] = 1
    await cache.invalidate("a", 1)
    assert await cache.get_or_load("a", source.loader("a"), 60) == b"1"


async def test_one_load_for_many_concurrent_readers_of_two_processes(redis_store: RedisStore, source: Source) -> None:
    source.versions["a"] = 1
    source.delay = lambda: 0.05
    processes = [make_cache(redis_store), make_cache(redis_store)]
    reads = [processes[i % 2].get_or_load("a", source.loader("a"), 60) for i in range(400)]
    assert set(await asyncio.gather(*reads)) == {b"1"}
    assert source.loads["a"] == 1


async def test_a_fill_is_refused_after_a_write(cache: CacheRepository, source: Source) -> None:
    token = await cache.lease("a")
    assert token
    await cache.invalidate("a", 2)
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)
    source.versions["a"] = 2
    assert await cache.get_or_load("a", source.loader("a"), 60) == b"2"


async def test_a_fill_is_refused_after_a_flush(cache: CacheRepository, redis_store: RedisStore) -> None:
    token = await cache.lease("a")
    assert token
    await cache.invalidate("a", 2)
    await redis_store.client.flushall()
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)


async def test_a_fill_is_refused_after_its_lease_has_ended(redis_store: RedisStore) -> None:
    cache = CacheRepository(redis_store, CircuitBreaker("redis", 3, 1), lease_seconds=0.05)
    token = await cache.lease("a")
    assert token
    await asyncio.sleep(0.1)
    assert not await cache.fill("a", token, Versioned(1, b"1"), 60)


async def test_a_late_write_does_not_undo_a_newer_fill(cache: CacheRepository, source: Source) -> None:
    source.versions["a"] = 3
    await cache.get_or_load("a", source.loader("a"), 60)
    await cache.invalidate("a", 2)
    await cache.invalidate("a", 3)
    assert await cache.get_or_load("a", source.loader("a"), 60) == b"3"
    assert source.loads["a"] == 1


async def test_a_fill_older_than_a_tombstone_is_refused(cache: CacheRepository) -> None:
    await cache.invalidate("a", 5)
    token = await cache.lease("a")
    assert token
    assert not await cache.fill("a", token, Versioned(4, b"4"), 60)


async def test_a_reader_that_starts_after_a_write_does_not_join_a_load_from_before(
    cache: CacheRepository, source: Source
) -> None:
    has_read, may_store = asyncio.Event(), asyncio.Event()

    async def load_first() -> Versioned:
        has_read.set()
        await may_store.wait()
        return Versioned(1, b"1")

    early = asyncio.ensure_future(cache.get_or_load("a", load_first, 60))
    await has_read.wait()
    source.versions["a"] = 2
    await cache.invalidate("a", 2)
    asyncio.get_running_loop().call_later(0.05, may_store.set)  # by then the next reader waits for that load
    late = await cache.get_or_load("a", source.loader("a"), 60)
    assert (await early, late) == (b"1", b"2")


async def test_a_failed_load_gives_its_lease_back(cache: CacheRepository, source: Source) -> None:
    async def fail() -> Versioned | None:
        raise ZeroDivisionError

    source.versions["a"] = 1
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("a", fail, 60)
    async with asyncio.timeout(1):
        assert await cache.get_or_load("a", source.loader("a"), 60) == b"1"


async def test_values_end_with_their_time(cache: CacheRepository, source: Source) -> None:
    source.versions["a"] = 1
    await cache.get_or_load("a", source.loader("a"), 0.05)
    await asyncio.sleep(0.1)
    await cache.get_or_load("a", source.loader("a"), 60)
    assert source.loads["a"] == 2


async def test_a_redis_that_was_restarted_is_an_empty_cache(
    cache: CacheRepository, redis_store: RedisStore, source: Source
) -> None:
    source.versions["a"] = 1
    await cache.get_or_load("a", source.loader("a"), 60)
    redis_store.identity.run_id = "another"
    source.versions["a"] = 2
    assert await cache.get_or_load("a", source.loader("a"), 60) == b"2"


async def test_a_write_during_which_redis_was_restarted_reaches_the_new_one(
    redis_store: RedisStore, source: Source
) -> None:
    identity = ServerIdentity("old")
    cache = make_cache(replace(redis_store, timeout=2, identity=identity))
    new = make_cache(replace(redis_store, timeout=2, identity=ServerIdentity("new")))
    source.versions["a"] = 1
    await new.get_or_load("a", source.loader("a"), 60)
    source.versions["a"] = 2
    write = asyncio.ensure_future(cache.invalidate("a", 2))
    await asyncio.sleep(0)  # the command is on its way with the key of the old server
    identity.run_id = "new"
    await write
    assert await new.get_or_load("a", source.loader("a"), 60) == b"2"


async def test_plain_values(cache: CacheRepository) -> None:
    await cache.set("p", b"x", 60)
    assert (await cache.get("p"), await cache.exists("p")) == (b"x", True)
    await cache.delete("p")
    assert (await cache.get("p"), await cache.exists("p")) == (None, False)


class ToldLate(CacheRepository):
    """Hears only when it may that a fill was stored."""

    stored: asyncio.Event
    may_hear: asyncio.Event

    async def _fill_many(self, wanted: list[tuple[str, str, int, bytes, int]]) -> list[int]:
        answers = await super()._fill_many(wanted)
        self.stored.set()
        await self.may_hear.wait()
        return answers


async def test_a_reader_after_a_write_does_not_join_a_load_that_was_stored_before_it(
    redis_store: RedisStore, source: Source
) -> None:
    cache = ToldLate(redis_store, CircuitBreaker("redis", 3, 1))
    cache.stored, cache.may_hear = asyncio.Event(), asyncio.Event()
    source.versions["a"] = 1
    early = asyncio.create_task(cache.get_or_load("a", source.loader("a"), 60))
    await cache.stored.wait()
    source.versions["a"] = 2
    await cache.invalidate("a", 2)
    late = asyncio.create_task(cache.get_or_load("a", source.loader("a"), 60))
    await asyncio.sleep(0.1)  # it has joined
    cache.may_hear.set()
    assert (await early, await late) == (b"1", b"2")


class DeletesOnly(CacheRepository):
    """What most caches do: a write deletes, a fill sets."""

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        await self._call(key, lambda client, names: client.delete(names[0]))

    async def fill(self, key: str, token: str, found: Versioned | None, ttl: float) -> bool:
        assert found
        entry = b"v%d:%b" % (found.version, found.body)
        await self._call(key, lambda client, names: client.set(names[0], entry, px=int(ttl * 1000)))
        await self.release(key, token)
        return True


async def race(redis_store: RedisStore, source: Source, cls: type[CacheRepository]) -> tuple[int, int]:
    """Fills and writes over 300 keys from two processes, TTLs ending, the server flushed. Returns how many reads were
    older than a write acknowledged before they began, and how many keys are stale when all is quiet."""
    keys = [f"k{i}" for i in range(300)]
    processes = [make_cache(redis_store, cls), make_cache(redis_store, cls)]
    acknowledged: Counter[str] = Counter()
    too_old = 0
    rng = random.Random(7)
    source.delay = lambda: rng.choice([0, 0, 0.001, 0.01])
    source.versions.update(dict.fromkeys(keys, 1))

    async def read(key: str) -> None:
        nonlocal too_old
        expected = acknowledged[key]
        ttl = rng.choice([0.005, 0.02, 60])
        body = await rng.choice(processes).get_or_load(key, source.loader(key), ttl)
        too_old += body is None or int(body) < expected

    async def write(key: str) -> None:
        source.versions[key] += 1
        version = source.versions[key]
        await asyncio.sleep(source.delay())
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
    source.delay = lambda: 0
    final = [await rng.choice(processes).get_or_load(key, source.loader(key), 60) for key in keys]
    stale = sum(body != str(source.versions[key]).encode() for key, body in zip(keys, final, strict=True))
    return too_old, stale


async def test_no_read_is_stale_in_a_race_of_fills_writes_and_flushes(redis_store: RedisStore, source: Source) -> None:
    assert await race(redis_store, source, CacheRepository) == (0, 0)


async def test_the_race_catches_a_cache_that_only_deletes(redis_store: RedisStore, source: Source) -> None:
    found = 0
    for _ in range(5):  # on a busy machine one race in many finds nothing
        if found := sum(await race(redis_store, source, DeletesOnly)):
            break
    assert found


async def test_without_redis_many_readers_of_a_key_load_it_twice(cache: CacheRepository, source: Source) -> None:
    open_breaker(cache)
    source.versions["a"], source.delay = 1, lambda: 0.01
    first = asyncio.ensure_future(cache.get_or_load("a", source.loader("a"), 60))
    await asyncio.sleep(0)
    bodies = await asyncio.gather(*(cache.get_or_load("a", source.loader("a"), 60) for _ in range(500)))
    assert {await first, *bodies} == {b"1"}
    assert source.loads["a"] == 2


async def test_without_redis_a_reader_that_starts_after_a_write_does_not_join_a_load_from_before(
    cache: CacheRepository, source: Source
) -> None:
    open_breaker(cache)
    may_answer = asyncio.Event()

    async def load_first() -> Versioned:
        await may_answer.wait()
        return Versioned(1, b"1")

    early = asyncio.ensure_future(cache.get_or_load("a", load_first, 60))
    await asyncio.sleep(0)
    source.versions["a"] = 2
    late = [asyncio.ensure_future(cache.get_or_load("a", source.loader("a"), 60)) for _ in range(2)]
    await asyncio.sleep(0)
    late[0].cancel()  # the others' load does not end with whoever began it
    may_answer.set()
    assert (await early, await late[1]) == (b"1", b"2")


async def test_without_redis_a_failed_load_is_tried_again_by_the_next(cache: CacheRepository, source: Source) -> None:
    open_breaker(cache)
    source.versions["a"] = 1

    async def fail() -> Versioned:
        raise StoreUnavailable("postgresql", "timeout")

    first = asyncio.ensure_future(cache.get_or_load("a", fail, 60))
    await asyncio.sleep(0)
    assert await cache.get_or_load("a", source.loader("a"), 60) == b"1"
    with pytest.raises(StoreUnavailable):
        await first


def open_breaker(cache: CacheRepository) -> None:
    cache.breaker.count(StoreUnavailable("redis", "timeout"), 1000)
