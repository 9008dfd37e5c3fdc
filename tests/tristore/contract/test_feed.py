"""Feed on fakeredis, Redis and a cluster: the same bodies."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.cluster_feed import feed_on
from tristore.cache.feed import BEAT_SECONDS, Feed
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, open_redis
from tristore.testing.stores import Servers, settings_on


class Process:
    """Stands for an app process: notes what wakes it."""

    def __init__(self, redis: RedisStore) -> None:
        self.feed = feed_on(redis, CircuitBreaker("redis", 3, 1))
        self.names: list[str] = []
        self.subscribed = 0
        self._news = asyncio.Event()

    def receive(self, names: Iterable[str]) -> None:
        self.names += names
        self._news.set()

    def missed(self) -> None:
        self.subscribed += 1
        self._news.set()

    async def until(self, *, names: int = 0, subscribed: int = 1) -> None:
        async with asyncio.timeout(5):
            while len(self.names) < names or self.subscribed < subscribed:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(redis: RedisStore) -> AsyncIterator[Process]:
    process = Process(replace(redis, subscriber=redis.client))  # a process has one connection to subscribe with
    process.feed.listen(process.receive, process.missed)
    process.feed.start()
    try:
        await process.until(subscribed=len(redis.cluster.servers) if redis.cluster else 1)
        yield process
    finally:
        await process.feed.close()


@pytest.fixture
async def here(redis_store: RedisStore) -> AsyncIterator[Process]:
    async with running(redis_store) as process:
        yield process


@pytest.fixture
async def there(redis_store: RedisStore) -> AsyncIterator[Process]:
    async with running(redis_store) as process:
        yield process


async def test_a_name_reaches_every_process_once(here: Process, there: Process) -> None:
    here.feed.send("list:1")
    assert here.names == ["list:1"]  # at once
    await there.until(names=1)
    there.feed.send("caller:2")
    await here.until(names=2)
    assert here.names == there.names == ["list:1", "caller:2"]


async def test_names_that_come_together_go_together(here: Process, there: Process) -> None:
    for i in range(100):
        here.feed.send(f"list:{i % 10}")
    await there.until(names=10)
    here.feed.send("last")
    await there.until(names=11)
    assert sorted(there.names) == sorted([*(f"list:{i}" for i in range(10)), "last"])


async def test_what_is_waiting_is_sent_before_closing(redis_store: RedisStore, there: Process) -> None:
    sender = feed_on(redis_store, CircuitBreaker("redis", 3, 1))
    sender.send("list:1")
    await sender.close()
    await there.until(names=1)


async def test_after_a_silence_redis_is_believed_once_it_was_told_what_it_was_owed(servers: Servers) -> None:
    told = asyncio.Event()

    async def all_is_told() -> None:
        await told.wait()

    async with open_redis(settings_on(servers, TristoreSettings, redis_timeout=2)) as redis:
        feed = Feed(redis, CircuitBreaker("redis", 3, 1), all_is_told)
        feed.start()
        try:
            await asyncio.wait_for(feed.prove(), 5)
            assert not feed.is_alive()
            told.set()
            await until_alive(feed)
            told.clear()
            await redis.client.config_set("min-replicas-to-write", 1)
            await until_alive(feed, False)
            await redis.client.config_set("min-replicas-to-write", 0)
            await asyncio.sleep(2 * BEAT_SECONDS)
            await asyncio.wait_for(feed.prove(), 5)
            assert not feed.is_alive()
            told.set()
            await until_alive(feed)
        finally:
            await redis.client.config_set("min-replicas-to-write", 0)
            await feed.close()


async def until_alive(feed: Feed, alive: bool = True) -> None:
    async with asyncio.timeout(5):
        while feed.is_alive() != alive:
            await asyncio.sleep(0.01)


async def test_a_connection_that_was_cut_is_made_anew_and_said_to_have_missed_some(servers: Servers) -> None:
    async with open_redis(settings_on(servers, TristoreSettings, redis_timeout=2)) as redis, running(redis) as here:
        for subscribed in (2, 3):
            assert await redis.client.client_kill_filter(_type="pubsub") >= 1  # an app of other tests may listen too
            await here.until(subscribed=subscribed)
        async with running(redis) as there:
            there.feed.send("list:1")
            await here.until(names=1)
