"""Who has just written is known to all processes. Where that cannot be known, everybody is taken for one who has."""

import uuid

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.pins import RedisPins
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore
from tristore.testing.lab import until
from tristore.testing.stores import begin_another_history

WRITER, READER = uuid.UUID(int=1), uuid.UUID(int=2)
SECONDS = 0.3


@pytest.fixture
async def both(redis_store: RedisStore) -> tuple[RedisPins, RedisPins]:
    """Those of two processes that have known Redis for longer than a pin lasts."""
    here, there = (RedisPins(redis_store, CircuitBreaker("redis", 3, 1), lambda: True) for _ in range(2))
    await until(lambda: _is_free(here, READER), 5)
    await until(lambda: _is_free(there, READER), 5)
    return here, there


async def _is_free(pins: RedisPins, user: uuid.UUID) -> bool:
    return not await pins.is_pinned(user, SECONDS)


async def test_a_writer_is_pinned_everywhere_for_a_time_and_nobody_else_is(both: tuple[RedisPins, RedisPins]) -> None:
    here, there = both
    await here.pin([WRITER], 60)
    assert [await pins.is_pinned(WRITER, SECONDS) for pins in both] == [True, True]
    assert not await there.is_pinned(READER, SECONDS)
    await here.pin([WRITER], SECONDS)
    await until(lambda: _is_free(there, WRITER), 5)
    await until(lambda: _is_free(here, WRITER), 5)


async def test_whoever_wrote_is_pinned_in_this_process_also_when_redis_has_forgotten(
    both: tuple[RedisPins, RedisPins], redis_store: RedisStore
) -> None:
    here, there = both
    await here.pin([WRITER], 60)
    await redis_store.client.flushdb()
    assert [await pins.is_pinned(WRITER, SECONDS) for pins in (here, there)] == [True, False]


async def test_while_redis_is_not_heard_everybody_is_pinned(redis_store: RedisStore) -> None:
    is_heard = True
    pins = RedisPins(redis_store, CircuitBreaker("redis", 3, 1), lambda: is_heard)
    await until(lambda: _is_free(pins, READER), 5)
    is_heard = False
    assert await pins.is_pinned(READER, SECONDS)


async def test_everybody_is_pinned_at_first_and_once_redis_has_another_history(redis_store: RedisStore) -> None:
    pins = RedisPins(redis_store, CircuitBreaker("redis", 3, 1), lambda: True)
    assert await pins.is_pinned(READER, SECONDS)
    await until(lambda: _is_free(pins, READER), 5)
    begin_another_history(redis_store)
    assert await pins.is_pinned(READER, SECONDS)
    await until(lambda: _is_free(pins, READER), 5)


async def test_without_redis_everybody_is_pinned_and_writing_goes_on(redis_store: RedisStore) -> None:
    breaker = CircuitBreaker("redis", 1, 0)
    pins = RedisPins(redis_store, breaker, lambda: True)
    await until(lambda: _is_free(pins, READER), 5)
    breaker._seconds = 60
    breaker.count(StoreUnavailable("redis", "unreachable"))
    await pins.pin([WRITER], SECONDS)
    assert await pins.is_pinned(READER, SECONDS)
