"""Counting in one process."""

import time

import pytest
from limits import parse

from services.rate_limit_service import RateLimitService
from tests.under_test import settings_for
from tristore.bounds import rate_counters
from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable
from tristore.testing.stores import REDIS, Servers


async def test_all_is_counted_anew_when_the_window_has_ended(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    async with REDIS["fakeredis"](settings_for(servers)) as redis:
        counts = RateCounters(redis, CircuitBreaker("redis", 3, 1))
        twice, thrice = parse("2/minute"), parse("3/minute")
        assert [counts.count_here(twice, "requests", "ana") for _ in range(3)] == [None, None, 60]
        assert counts.count_here(twice, "requests", "ben") is None
        assert counts.count_here(twice, "sign in", "ana") is None
        clock[0] += 45
        assert counts.count_here(twice, "requests", "ana") == 15
        assert [counts.count_here(thrice, "requests", "ana") for _ in range(4)] == [None, None, None, 60]
        clock[0] += 15
        assert counts.count_here(twice, "requests", "ana") is None
        assert counts.count_here(thrice, "requests", "ana") == 45


async def test_so_many_are_counted_and_no_more(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is counted goes on being counted."""
    monkeypatch.setattr(rate_counters, "MOST_COUNTED", 3)
    async with REDIS["fakeredis"](settings_for(servers)) as redis:
        counts, once = RateCounters(redis, CircuitBreaker("redis", 3, 1)), parse("1/minute")
        first = [counts.count_here(once, str(who)) for who in range(5)]
        again = [counts.count_here(once, str(who)) for who in range(5)]
        assert first == [None] * 5
        assert [refused is not None for refused in again] == [True, True, True, False, False]
        assert len(counts._here[once][1]) == 3


async def test_what_is_noted_is_known_and_without_redis_nobody_can_tell(servers: Servers) -> None:
    breaker = CircuitBreaker("redis", 1, 60)
    async with REDIS["redis"](settings_for(servers, redis_timeout=2)) as redis:
        counts = RateCounters(redis, breaker)
        await counts.note(60, "ana", "here")
        assert [await counts.is_noted("ana", where) for where in ("here", "there")] == [True, False]
        with pytest.raises(StoreUnavailable), breaker:
            raise StoreUnavailable("redis", "unreachable")
        await counts.note(60, "ana", "there")
        assert [await counts.is_noted("ana", where) for where in ("here", "there")] == [None, None]
        assert await redis.client.keys("limits:noted:*") == [b"limits:noted:ana:here"]


async def test_whoever_has_signed_in_from_there_waits_in_no_strangers_line(servers: Servers) -> None:
    async with REDIS["redis"](settings_for(servers, redis_timeout=2)) as redis:
        limits = RateLimitService(
            RateCounters(redis, CircuitBreaker("redis", 3, 1)), settings_for(servers).rate_limits()
        )
        await limits.remember("203.0.113.1", "ana")
        owner = await limits.guess("203.0.113.1", "ana")
        strangers = [("203.0.113.1", "ben"), ("203.0.113.1", "eva"), ("203.0.113.2", "ana")]
        lines = [await limits.guess(address, account) for address, account in strangers]
        assert lines == [("203.0.113.1", False), ("203.0.113.1", False), ("203.0.113.2", False)]
        assert (owner[0] in dict(lines), owner[1]) == (False, True)
