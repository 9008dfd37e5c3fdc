"""Counters of the rate limits: in Redis, where all processes share them, or in this process."""

import time
from collections import Counter
from contextlib import suppress
from typing import Any

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as SharedLimiter

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore, within_timeout

MOST_COUNTED = 100_000
"""So many at a time are counted in this process for each limit. Whoever comes beyond them is not: memory is bounded,
and an attacker who has so many addresses is not stopped by a count of each."""


class RateCounters:
    """Both ways of counting return None within the limit. Above it they return the seconds until the window ends."""

    def __init__(self, redis: RedisStore, breaker: CircuitBreaker) -> None:
        self._redis = redis
        self._breaker = breaker
        pool: Any = redis.client.connection_pool  # the option is documented, but not in its type
        storage = RedisStorage("redis://", implementation="redispy", key_prefix="limits", connection_pool=pool)
        # The library's own client is in no trace, and in a cluster it would have other connections and time-outs.
        bridge: Any = storage.bridge
        bridge.storage = redis.client
        bridge.register_scripts()
        self._shared = SharedLimiter(storage)
        self._here: dict[RateLimitItem, tuple[float, Counter[tuple[str, ...]]]] = {}

    async def count(self, limit: RateLimitItem, *who: str) -> float | None:
        """Count for all processes together. When Redis is down, count in this process."""
        try:
            with self._breaker:
                async with within_timeout(self._redis):
                    if await self._shared.hit(limit, *who):
                        return None
                    return _seconds_left(limit, (await self._shared.get_window_stats(limit, *who)).reset_time)
        except StoreUnavailable:
            return self.count_here(limit, *who)

    def count_here(self, limit: RateLimitItem, *who: str) -> float | None:
        """Count in this process alone, without a round trip."""
        # The library's memory storage looks through all its keys every 10 ms, in a thread. Here a limit has one window
        # for everybody, and all that was counted in it ends at once.
        now = time.monotonic()
        window = self._here.get(limit)
        if window is None or now >= window[0]:
            window = self._here[limit] = now + limit.get_expiry(), Counter()
        ends, counts = window
        if len(counts) >= MOST_COUNTED and who not in counts:
            return None
        count = counts[who] = counts[who] + 1
        return None if count <= limit.amount else ends - now

    async def note(self, seconds: int, *who: str) -> None:
        """Remember it for so long. Without Redis it is not remembered."""
        with suppress(StoreUnavailable), self._breaker:
            async with within_timeout(self._redis):
                await self._redis.client.set(_noted(who), 1, ex=seconds)

    async def is_noted(self, *who: str) -> bool | None:
        """None when Redis cannot tell."""
        try:
            with self._breaker:
                async with within_timeout(self._redis):
                    return bool(await self._redis.client.exists(_noted(who)))
        except StoreUnavailable:
            return None


def _noted(who: tuple[str, ...]) -> str:
    return ":".join(("limits", "noted", *who))


def _seconds_left(limit: RateLimitItem, reset_time: float) -> float:
    return min(max(reset_time - time.time(), 1), limit.get_expiry())
