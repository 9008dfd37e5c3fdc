"""Counting in one process."""

import time

import pytest
from limits import parse

from tests.under_test import settings_for
from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
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
