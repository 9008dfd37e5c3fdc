"""Counters of the rate limits: in Redis, where all processes share them, or in this process."""

import time
from typing import Any

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as SharedLimiter
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from database.redis import RedisStore, within_timeout
from repositories.breaker import CircuitBreaker
from services.errors import StoreUnavailable


class RateLimitRepository:
    """Both ways of counting return None within the limit, else the seconds until the window ends."""

    def __init__(self, redis: RedisStore, breaker: CircuitBreaker) -> None:
        self._redis = redis
        self._breaker = breaker
        pool: Any = redis.client.connection_pool  # the option is documented, but not in its type
        self._shared = SharedLimiter(
            RedisStorage("redis://", implementation="redispy", key_prefix="limits", connection_pool=pool)
        )
        # The library's asynchronous memory storage looks at every key on each hit: 1.3 ms with 10,000 users.
        self._here = FixedWindowRateLimiter(MemoryStorage())

    async def count(self, limit: RateLimitItem, *who: str) -> float | None:
        """Count for all processes together. When Redis is down: in this process."""
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
        if self._here.hit(limit, *who):
            return None
        return _seconds_left(limit, self._here.get_window_stats(limit, *who).reset_time)


def _seconds_left(limit: RateLimitItem, reset_time: float) -> float:
    return min(max(reset_time - time.time(), 1), limit.get_expiry())
