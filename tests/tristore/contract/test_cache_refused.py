"""A Redis that answers and refuses: each call does without it, or says why it could not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import pytest
from limits import parse
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned, keys_of
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.embedded.servers import Server
from tristore.errors import Reason, StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, learn_history, open_redis
from tristore.testing.cache import Rows
from tristore.testing.stores import Servers, real_redis, settings_on


@pytest.fixture
def rows() -> Rows:
    return Rows()


@asynccontextmanager
async def configured(admin: Redis, server: Server, **options: str) -> AsyncIterator[str]:
    changes = {name.replace("_", "-"): value for name, value in options.items()}
    before = await admin.config_get(*changes)
    try:
        for name, value in changes.items():
            await admin.config_set(name, value)
        yield server.dsn
    finally:
        for name in changes:
            await admin.config_set(name, before[name] or "")


@asynccontextmanager
async def unable_to_save(admin: Redis, server: Server) -> AsyncIterator[str]:
    in_the_way = server.data / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()  # a file cannot take its place, not even root's
    try:
        async with configured(admin, server, save="3600 1") as dsn, asyncio.timeout(10):
            await admin.bgsave()
            while (await admin.info("persistence"))["rdb_last_bgsave_status"] != "err":
                await asyncio.sleep(0.01)
            yield dsn
    finally:
        async with asyncio.timeout(10):
            while (await admin.info("persistence"))["rdb_bgsave_in_progress"]:  # it tries again and again
                await asyncio.sleep(0.01)
        in_the_way.rmdir()


@asynccontextmanager
async def demoted(admin: Redis, server: Server) -> AsyncIterator[str]:
    await admin.replicaof("127.0.0.1", "1")
    try:
        yield server.dsn
    finally:
        await admin.replicaof("NO", "ONE")


@asynccontextmanager
async def limited(admin: Redis, server: Server, *, without: str) -> AsyncIterator[str]:
    commands = ["+@all", without]
    await admin.acl_setuser("limited", True, passwords=["+limited"], keys=["*"], channels=["*"], commands=commands)
    try:
        yield f"redis://limited:limited@{server.dsn.partition('@')[2]}"
    finally:
        await admin.acl_deluser("limited")


@asynccontextmanager
async def busy(admin: Redis, server: Server) -> AsyncIterator[str]:
    async with configured(admin, server, busy_reply_threshold="1") as dsn, Redis.from_url(server.dsn) as other:
        script = asyncio.ensure_future(other.eval("while true do end", 0))
        await asyncio.sleep(0.05)
        try:
            yield dsn
        finally:
            await admin.script_kill()
            await asyncio.wait([script])
            assert script.exception()


@dataclass(frozen=True)
class Refusal:
    begin: Callable[[Redis, Server], AbstractAsyncContextManager[str]]
    reason: Reason


@dataclass(frozen=True)
class Refused:
    redis: RedisStore
    word: str
    reason: Reason


REFUSALS = {
    "NOREPLICAS": Refusal(partial(configured, min_replicas_to_write="1"), "refuses writes"),
    "OOM": Refusal(partial(configured, maxmemory="1mb", maxmemory_policy="noeviction"), "refuses writes"),
    "MISCONF": Refusal(unable_to_save, "refuses writes"),
    "READONLY": Refusal(demoted, "read only"),
    "NOPERM info": Refusal(partial(limited, without="-info"), "not permitted"),
    "NOPERM scripting": Refusal(partial(limited, without="-@scripting"), "not permitted"),
    "NOPERM set": Refusal(partial(limited, without="-set"), "not permitted"),
    "BUSY": Refusal(busy, "timeout"),
}


@pytest.fixture(params=REFUSALS)
async def refused(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Refused]:
    refusal, server = REFUSALS[request.param], servers["redis"]
    async with Redis.from_url(server.dsn) as admin:
        await admin.flushall()
        async with refusal.begin(admin, server) as dsn:
            async with open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn, redis_timeout=2)) as store:
                yield Refused(store, request.param.split()[0], refusal.reason)


async def test_a_cache_that_refuses_is_done_without(refused: Refused) -> None:
    cache = cache_on(refused.redis)
    found = Versioned(1, b"1")

    async def load() -> Versioned:
        return found

    assert await cache.get_or_load("a", load, 60) == b"1"
    assert not await cache.lease("a")
    assert not await cache.fill("a", "token", found, 60)
    await cache.release("a", "token")


# Without memory Redis lets a script go on whose first write is DEL.
@pytest.mark.parametrize("refused", [name for name in REFUSALS if name != "OOM"], indirect=True)
async def test_a_write_that_a_refusing_cache_has_not_heard_of_is_owed(refused: Refused) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await cache_on(refused.redis).invalidate("a", 2)
    assert (caught.value.reason, caught.value.cause) == (refused.reason, refused.word)


async def test_limits_are_counted_here_while_redis_refuses(refused: Refused) -> None:
    limits = RateCounters(refused.redis, CircuitBreaker("redis", 1, 60))
    once = parse("1/hour")
    assert await limits.count(once, "me") is None
    assert await limits.count(once, "me")


async def test_a_reply_that_no_table_has_is_done_without_and_raises_in_tests(servers: Servers) -> None:
    async def load() -> Versioned:
        return Versioned(1, b"1")

    for environment in ("local", "test"):
        async with real_redis(settings_on(servers, TristoreSettings, environment=environment)) as redis:
            await redis.client.ping()  # connects, and so learns which server it is
            await redis.client.sadd(keys_of("a", 1, redis.identity.history)[0], "a set where a string is expected")
            with pytest.raises(ResponseError) if environment == "test" else nullcontext():
                assert await cache_on(redis).get_or_load("a", load, 60) == b"1"


def cache_on(redis: RedisStore) -> FencedCache:
    return FencedCache(Fence(redis, CircuitBreaker("redis", 1000, 1)))


async def test_a_write_after_a_promotion_that_open_connections_did_not_see_reaches_all_processes(
    servers: Servers, rows: Rows
) -> None:
    server = servers["redis"]
    settings = settings_on(servers, TristoreSettings, redis_timeout=2)
    async with open_redis(settings) as here, open_redis(settings) as there, Redis.from_url(server.dsn) as admin:
        caches = [FencedCache(Fence(redis, CircuitBreaker("redis", 1000, 1))) for redis in (here, there)]
        rows.versions["p"] = 1
        for cache in caches:
            await cache.get_or_load("p", rows.loader("p"), 60)
        before = here.identity.history
        async with demoted(admin, server):
            pass
        assert here.identity.history == before  # its connection is still open
        await learn_history(there)
        assert there.identity.history != before
        assert await caches[1].get_or_load("p", rows.loader("p"), 60) == b"1"
        rows.versions["p"] = 2
        await caches[0].invalidate("p", 2)
        assert here.identity.history == there.identity.history
        assert [await cache.get_or_load("p", rows.loader("p"), 60) for cache in caches] == [b"2", b"2"]
