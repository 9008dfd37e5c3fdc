"""Redis with a replica and a Sentinel: after a failover the app is on the new primary, with another history of data."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, open_redis, ping
from tristore.testing.cache import Rows, running
from tristore.testing.lab import until
from tristore.testing.sentinel import Sentinel, sentinel_in
from tristore.testing.stores import Servers, settings_on
from tristore.testing.tls import Authority

SAFE = "?ssl_ca_certs={of.ca}&ssl_certfile={of.cert}&ssl_keyfile={of.key}"


@pytest.fixture
async def pair(run_folder: Path, tmp_path: Path) -> AsyncIterator[Sentinel]:
    """In the run's folder, which ends what works in it."""
    async with sentinel_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}") as pair:
        yield pair


async def takes_writes(redis: RedisStore) -> bool:
    try:
        async with asyncio.timeout(1):
            await ping(redis)
            await redis.client.set("key", "value")
    except (StoreUnavailable, OSError, TimeoutError):
        return False
    return True


async def test_after_a_failover_it_is_the_new_primary_and_another_history(servers: Servers, pair: Sentinel) -> None:
    settings = settings_on(servers, TristoreSettings, redis_dsn=pair.dsn, redis_timeout=0.5)
    async with open_redis(settings) as redis:
        await until(lambda: takes_writes(redis), 5)
        before = redis.identity.history
        pair.primary.signal(signal.SIGKILL)
        await until(lambda: takes_writes(redis), 30)
        assert redis.identity.history != before
        await pair.until_promoted()
        async with pair.primary.client() as promoted:
            assert await promoted.get("key") == b"value"
    async with open_redis(settings) as other:
        await until(lambda: takes_writes(other), 5)
        assert other.identity.history == redis.identity.history  # all processes agree


async def test_who_has_seen_the_new_primary_uses_no_connection_to_the_old_one(servers: Servers, pair: Sentinel) -> None:
    """Which takes writes for seconds more, after a failover by hand. Names of keys are those of the new one by then."""
    settings = settings_on(servers, TristoreSettings, redis_dsn=pair.dsn, redis_timeout=0.5)
    async with open_redis(settings) as redis:
        before = await histories(redis)
        assert len(before) == 1
        await pair.switch_over()
        await ping(redis)  # by another pool
        assert redis.identity.history not in before
        assert await histories(redis) == {redis.identity.history}


async def test_an_old_primary_that_takes_its_place_again_brings_back_nothing(servers: Servers, pair: Sentinel) -> None:
    """Nobody has made it a replica meanwhile, so its `master_replid` is what it was."""
    rows, old = Rows(), pair.primary
    settings = settings_on(servers, TristoreSettings, redis_dsn=pair.dsn, redis_timeout=0.5)
    async with open_redis(settings) as redis, running(redis, rows) as process:

        async def is_elsewhere() -> bool:
            return process.feed.is_alive() and redis.identity.history != before

        await process.warm("k")
        before = first = redis.identity.history
        await pair.switch_over()
        await until(is_elsewhere, 10)
        await process.write("k")
        before = redis.identity.history
        pair.primary.signal(signal.SIGKILL)
        await pair.until_promoted()
        await until(is_elsewhere, 10)
        assert pair.primary is old
        async with old.client() as client:
            assert (await client.info("replication"))["master_replid"] == first
        assert await process.read("k") == 2


async def test_a_connection_that_is_cut_while_in_use_asks_the_sentinels_again(servers: Servers, pair: Sentinel) -> None:
    async with open_redis(settings_on(servers, TristoreSettings, redis_dsn=pair.dsn, redis_timeout=0.5)) as redis:
        connection: Any = await redis.client.connection_pool.get_connection()
        assert connection.port == pair.primary.announced
        await pair.switch_over()
        await connection.disconnect()
        await connection.send_command("PING")
        assert connection.port == pair.primary.announced
        assert await connection.read_response() == b"PONG"
        await redis.client.connection_pool.release(connection)


async def histories(redis: RedisStore) -> set[str]:
    """Those of the servers that some connections of the pool lead to."""
    told = await asyncio.gather(*(redis.client.info("replication") for _ in range(8)))
    return {of_server["master_replid"] for of_server in told}


async def test_all_are_reached_with_tls_and_sentinels_with_a_password_of_their_own(
    servers: Servers, run_folder: Path, tmp_path: Path
) -> None:
    """rediss+sentinel://, before a failover and after it."""
    authority = Authority.of(tmp_path)
    async with sentinel_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}", tls=authority.context) as pair:
        dsn = f"{pair.dsn}{SAFE.format(of=authority)}&sentinel_password={pair.password}"
        settings = settings_on(servers, TristoreSettings, redis_dsn=dsn, redis_timeout=0.5)
        async with open_redis(settings) as redis:
            await until(lambda: takes_writes(redis), 10)
            pair.primary.signal(signal.SIGKILL)
            await pair.until_promoted()
            await until(lambda: takes_writes(redis), 30)
        fronts = [pair.front, pair.primary.front, pair.replica.front]
        assert all(front and 0 < front.seen["tls"] == front.seen["certificate"] for front in fronts)


@pytest.mark.parametrize("lacks", ["ssl_ca_certs", "sentinel_password", "rediss"])
async def test_without_what_it_asks_for_nothing_is_read(
    servers: Servers, run_folder: Path, tmp_path: Path, lacks: str
) -> None:
    authority = Authority.of(tmp_path)
    async with sentinel_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}", tls=authority.context) as pair:
        more = {"ssl_ca_certs": str(authority.ca), "sentinel_password": pair.password}
        dsn = f"{pair.dsn}?" + "&".join(f"{name}={value}" for name, value in more.items() if name != lacks)
        if lacks == "rediss":
            dsn = f"{pair.dsn}?sentinel_password={pair.password}".replace("rediss", "redis", 1)
        async with open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn, redis_timeout=2)) as redis:
            with pytest.raises(StoreUnavailable):
                await ping(redis)


async def test_a_replica_is_refused_by_name_before_anything_is_read_from_it(servers: Servers, pair: Sentinel) -> None:
    dsn = f"redis://:{pair.replica.password}@127.0.0.1:{pair.replica.server.port}/0"
    async with open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn, redis_timeout=0.5)) as redis:
        with pytest.raises(StoreUnavailable) as refused:
            await ping(redis)
    assert refused.value.reason == "read only"
