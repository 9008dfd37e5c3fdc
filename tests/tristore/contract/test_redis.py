"""How long one operation on Redis may take."""

import asyncio
import time
from dataclasses import replace

import pytest

from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, within_timeout
from tristore.testing.stores import Servers, real_redis, settings_on


async def test_an_event_loop_that_comes_late_is_not_taken_for_a_silent_redis(redis_store: RedisStore) -> None:
    async def four_short_waits() -> None:
        async with within_timeout(replace(redis_store, timeout=0.1)):
            for _ in range(4):
                await asyncio.sleep(0.01)

    waiting = asyncio.create_task(four_short_waits())
    for _ in range(3):
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - the loop is busy
    await waiting


async def test_a_silent_redis_is_waited_for_once(servers: Servers) -> None:
    async with real_redis(settings_on(servers, TristoreSettings, redis_timeout=0.1)) as redis:
        await redis.client.ping()
        await redis.client.client_pause(1000)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            async with within_timeout(redis):
                await redis.client.ping()
        assert 0.1 <= time.monotonic() - started < 0.4
