"""A failover that loses commits: what had been cached of them is read no more, soon after the new primary serves."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import to_thread
from sqlalchemy import text

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned
from tristore.cache.feed import Feed
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.cache.near import NearCache
from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.postgres import Postgres, connect, open_postgres, start_budget
from tristore.stores.redis import open_redis
from tristore.stores.watch import PostgresWatch
from tristore.testing.lab import until
from tristore.testing.replication import Replication, replication_in
from tristore.testing.stores import Servers, settings_on

LONG = 60.0
"""Seconds that the test does not reach."""
SOON = 5.0
READ = text("SELECT version FROM things")
WRITE = text("UPDATE things SET version = version + 1 RETURNING version")


@dataclass(frozen=True)
class Process:
    postgres: Postgres
    cache: FencedCache

    async def read(self) -> int:
        """Through all caches."""

        async def load() -> Versioned:
            async with connect(self.postgres.reads) as connection:
                version = int(await connection.scalar(READ) or 0)
            return Versioned(version, str(version).encode())

        start_budget(2)
        return int(await self.cache.get_or_load("thing", load, LONG, LONG) or 0)

    async def write(self) -> int:
        start_budget(2)
        async with connect(self.postgres.reads) as connection:
            version = int(await connection.scalar(WRITE) or 0)
        await self.cache.invalidate("thing", version)
        return version


@asynccontextmanager
async def running(settings: TristoreSettings) -> AsyncIterator[Process]:
    async with open_postgres(settings) as postgres, open_redis(settings) as redis:
        breaker = CircuitBreaker("redis", 1000, 0.01)
        feed = Feed(redis, breaker)
        near = NearCache(100, feed.is_alive)
        postgres.lineage.listen(near.clear)
        cache = FencedCache(Fence(redis, breaker, lineage=postgres.lineage), near=near, feed=feed)
        watch = PostgresWatch(postgres, 0.7)
        feed.start()
        watch.start()
        try:
            await until(lambda: _is_alive(feed), 10)
            yield Process(postgres, cache)
        finally:
            await watch.close()
            await cache.close()
            await feed.close()


async def _is_alive(feed: Feed) -> bool:
    return feed.is_alive()


@pytest.fixture
async def pair(run_folder: Path, tmp_path: Path) -> AsyncIterator[Replication]:
    async with replication_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}", synchronous=False) as pair:
        yield pair


async def test_what_a_failover_lost_is_not_read_from_any_cache(servers: Servers, pair: Replication) -> None:
    settings = settings_on(servers, TristoreSettings, postgres_dsn=pair.dsn(), postgres_pooler="none")
    async with AsyncExitStack() as exits:
        here, there = [await exits.enter_async_context(running(settings)) for _ in range(2)]
        async with connect(here.postgres.reads) as connection:
            await connection.execute(text("CREATE TABLE things (version int NOT NULL)"))
            await connection.execute(text("INSERT INTO things VALUES (1)"))
        written = await pair.primary.says("SELECT pg_current_wal_lsn()::text")
        await until(lambda: pair.standby.answers(f"SELECT pg_last_wal_replay_lsn() >= '{written}'"), 10)
        before = here.postgres.lineage.name
        assert before
        assert there.postgres.lineage.name == before  # all processes agree

        await pair.standby.says("ALTER SYSTEM SET primary_conninfo = ''")  # it receives nothing more
        await pair.standby.says("SELECT pg_reload_conf()")
        await until(lambda: pair.primary.answers("SELECT count(*) = 0 FROM pg_stat_replication"), 10)
        assert [await here.write() for _ in range(3)] == [2, 3, 4]
        assert [await process.read() for process in (here, there)] == [4, 4]  # and keep it near

        await to_thread.run_sync(pair.primary.kill)
        await pair.promote()

        async def read(version: int) -> bool:
            try:
                return [await process.read() for process in (here, there)] == [version, version]
            except StoreUnavailable:
                return False

        assert await until(lambda: read(1), 10) < SOON
        assert here.postgres.lineage.name == there.postgres.lineage.name != before
        assert await there.write() == 2  # a version that has been there before
        assert await there.read() == 2
        assert await until(lambda: read(2), 10) < SOON
