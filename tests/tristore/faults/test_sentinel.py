"""Redis with a replica and a Sentinel: after a failover the app is on the new primary, with another history of data."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from anyio import to_thread
from redis.asyncio import Redis

from tristore.embedded.accounts import ONESELF
from tristore.embedded.process import free_port, spawn
from tristore.embedded.servers import EmbeddedServers, Server
from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, open_redis, ping
from tristore.testing.lab import until
from tristore.testing.stores import Servers, settings_on

CONFIG = """
bind 127.0.0.1
port {port}
sentinel monitor main 127.0.0.1 {primary} 1
sentinel auth-pass main {password}
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 3000
"""


@dataclass(frozen=True)
class Pair:
    primary: Server
    replica: Server
    sentinel: int
    password: str

    @property
    def dsn(self) -> str:
        return f"redis+sentinel://:{self.password}@127.0.0.1:1,127.0.0.1:{self.sentinel}/main/0"


@pytest.fixture
async def pair(run_folder: Path, tmp_path: Path) -> AsyncIterator[Pair]:
    """In the run's folder, which ends what works in it."""
    folder = run_folder / tmp_path.name
    primary = await to_thread.run_sync(EmbeddedServers(folder / "primary").start, "redis")
    replica = await to_thread.run_sync(EmbeddedServers(folder / "replica").start, "redis")
    password = str(urlsplit(primary.dsn).password)
    async with Redis.from_url(primary.dsn) as to_primary, Redis.from_url(replica.dsn) as to_replica:
        await to_primary.config_set("masterauth", password)
        await to_replica.config_set("masterauth", password)
        await to_replica.config_set("requirepass", password)
        await to_replica.replicaof("127.0.0.1", str(primary.port))

        async def is_linked() -> bool:
            return bool((await to_replica.info("replication"))["master_link_status"] == "up")

        await until(is_linked, 20)
    port, data = free_port(None), folder / "sentinel"
    data.mkdir()
    (data / "sentinel.conf").write_text(CONFIG.format(port=port, primary=primary.port, password=password))
    program = psutil.Process(primary.pid).exe()
    process = spawn([program, "sentinel.conf", "--sentinel"], data, data / "log", {}, ONESELF)
    async with Redis(port=port) as sentinel:

        async def knows_the_replica() -> bool:
            try:
                return bool(await sentinel.sentinel_slaves("main"))
            except OSError:
                return False

        await until(knows_the_replica, 30)
    yield Pair(primary, replica, port, password)
    process.terminate()
    for name in ("primary", "replica"):
        await to_thread.run_sync(EmbeddedServers(folder / name).stop, "redis")


async def takes_writes(redis: RedisStore) -> bool:
    try:
        async with asyncio.timeout(1):
            await ping(redis)
            await redis.client.set("key", "value")
    except (StoreUnavailable, OSError, TimeoutError):
        return False
    return True


async def test_after_a_failover_it_is_the_new_primary_and_another_history(servers: Servers, pair: Pair) -> None:
    settings = settings_on(servers, TristoreSettings, redis_dsn=pair.dsn, redis_timeout=0.5)
    async with open_redis(settings) as redis:
        await until(lambda: takes_writes(redis), 5)
        before = redis.identity.history
        psutil.Process(pair.primary.pid).kill()
        await until(lambda: takes_writes(redis), 30)
        assert redis.identity.history != before
        async with Redis(port=pair.replica.port, password=pair.password) as promoted:
            assert (await promoted.info("replication"))["role"] == "master"
            assert await promoted.get("key") == b"value"
    async with open_redis(settings) as other:
        await until(lambda: takes_writes(other), 5)
        assert other.identity.history == redis.identity.history  # all processes agree


async def test_a_replica_is_refused_by_name_before_anything_is_read_from_it(servers: Servers, pair: Pair) -> None:
    dsn = f"redis://:{pair.password}@127.0.0.1:{pair.replica.port}/0"
    async with open_redis(settings_on(servers, TristoreSettings, redis_dsn=dsn, redis_timeout=0.5)) as redis:
        with pytest.raises(StoreUnavailable) as refused:
            await ping(redis)
    assert refused.value.reason == "read only"
