"""Who has just written, in Redis: all processes let them read from PostgreSQL's primary."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from uuid import UUID

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore, within_timeout

OWN = 10_000


class RedisPins:
    """A Redis that was restarted has forgotten who was pinned, so everybody is until their pins would have ended.
    Without Redis everybody is."""

    def __init__(self, redis: RedisStore, breaker: CircuitBreaker, is_believed: Callable[[], bool]) -> None:
        """`is_believed`: whether Redis is heard to serve this process. While it is not, everybody is pinned."""
        self._redis = redis
        self._breaker = breaker
        self._is_believed = is_believed
        self._own: OrderedDict[UUID, float] = OrderedDict()
        """Who wrote through this process, also where Redis did not take it, and until when they are pinned."""
        self._history = ""
        self._since = 0.0

    async def pin(self, users: Collection[UUID], seconds: float) -> None:
        """Never raises. Where Redis does not take it, only this process knows it."""
        now = time.monotonic()
        for user in users:
            self._own[user] = now + seconds
            self._own.move_to_end(user)
        while self._own and (len(self._own) > OWN or next(iter(self._own.values())) < now):
            self._own.popitem(last=False)
        try:
            with self._breaker:
                async with within_timeout(self._redis):
                    for user in users:  # one, as a rule
                        await self._redis.client.set(_key(user), b"1", px=round(seconds * 1000))
        except StoreUnavailable:
            pass

    async def is_pinned(self, user: UUID, seconds: float) -> bool:
        """`seconds`: how long pins last."""
        if self._own.get(user, 0.0) > time.monotonic() or not self._is_believed():
            return True
        try:
            with self._breaker:
                async with within_timeout(self._redis):
                    # Asked also for NOBODY: the answer shows that Redis is there, and which one.
                    pinned = await self._redis.client.exists(_key(user))
        except StoreUnavailable:
            return True
        if self._history != self._redis.history:
            self._history, self._since = self._redis.history, time.monotonic()
        return bool(pinned) or time.monotonic() < self._since + seconds


def _key(user: UUID) -> str:
    return f"pin:{user}"
