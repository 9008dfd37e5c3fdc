"""What the cache is tested with: rows to load, and app processes that read them through a near cache."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.cluster_feed import feed_on
from tristore.cache.entries import Versioned
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import CHANGED, FencedCache, Load
from tristore.cache.near import NearCache
from tristore.stores.redis import RedisStore

LONG = 60.0
"""Seconds that no test reaches: what ends earlier did not end because of them."""


class Rows:
    """Stands for PostgreSQL: the committed version of each key, and how often it was loaded."""

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


class WatchedFence(Fence):
    """Notes which keys were read from Redis, and lets a test hold the answers back."""

    batches: list[list[str]]
    hold: Callable[[], Awaitable[object]] | None = None

    async def _read(self, keys: list[str]) -> list[bytes | None]:
        entries = await super()._read(keys)
        self.batches.append(keys)
        if self.hold:
            await self.hold()
        return entries


class Process:
    """Stands for an app process. It notes what it was told."""

    def __init__(self, redis: RedisStore, rows: Rows, near: type[NearCache] = NearCache) -> None:
        breaker = CircuitBreaker("redis", 1000, 0.01)
        self.redis = redis
        self._rows = rows
        self.feed = feed_on(redis, breaker)
        self.near = near(1000, self.feed.is_alive)
        self.fence = WatchedFence(redis, breaker, lease_seconds=1)
        self.fence.batches = []
        self.cache = FencedCache(self.fence, near=self.near, feed=self.feed)
        self.told: list[str] = []
        """Keys that have changed."""
        self.subscribed = 0
        self._news = asyncio.Event()
        self.feed.listen(self._note_names, self._note_subscription)

    def _note_names(self, names: Iterable[str]) -> None:
        self.told += [name.removeprefix(CHANGED) for name in names]
        self._news.set()

    def _note_subscription(self) -> None:
        self.subscribed += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what the feed has brought makes it true. Raises TimeoutError."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def read(self, key: str, near_seconds: float = LONG) -> int:
        body = await self.cache.get_or_load(key, self._rows.loader(key), LONG, near_seconds)
        return int(body or 0)

    async def write(self, key: str) -> None:
        """Commit, then invalidate."""
        self._rows.versions[key] += 1
        await self.cache.invalidate(key, self._rows.versions[key])

    async def warm(self, *keys: str) -> None:
        """Read until the near cache has them."""
        for key in keys:
            self._rows.versions.setdefault(key, 1)
            while self.near.get(key) is None:
                await self.read(key)


@asynccontextmanager
async def running(redis: RedisStore, rows: Rows, near: type[NearCache] = NearCache) -> AsyncIterator[Process]:
    """A process whose feed has begun to live."""
    process = Process(replace(redis, subscriber=redis.client), rows, near)
    process.feed.start()
    try:
        await process.until(lambda: process.subscribed >= 1)  # a cluster has several servers
        await asyncio.wait_for(process.feed.prove(), 5)
        yield process
    finally:
        await process.cache.close()
        await process.feed.close()
