"""Ends what processes have copies of. When the answer goes out, no process still uses an old copy."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

from tristore.outbox.effects import Effect, Owed
from tristore.outbox.relay import Outbox

PATIENCE_SECONDS = 2.5
"""An answer waits so long for what this process could not deliver at once. Each relay polls once a second."""
AGAIN_SECONDS = 0.3
"""After what time this process tries again itself."""


class Cache(Protocol):
    """What an invalidation needs of the cache: see `tristore/cache/fenced_cache.py`."""

    def require(self, key: str, version: int) -> None: ...

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None: ...

    async def wait_until_heard(self, keys: Iterable[str]) -> None: ...


class Invalidate(Effect):
    """Base of the effects that end all copies of a key that are older than a version. The targets of the outbox must
    have a `cache`."""

    queue: ClassVar = "redis"
    any_order: ClassVar = True
    version: int
    heard: bool = False
    """Whether every process tells that it has heard of it. Set it where the sender waits for that."""

    @property
    @abstractmethod
    def key(self) -> str:
        """The key in the cache."""

    def at_once(self, to: Any) -> None:
        cache: Cache = to.cache
        cache.require(self.key, self.version)

    async def apply(self, to: Any) -> None:
        cache: Cache = to.cache
        await cache.invalidate(self.key, self.version, heard=self.heard)


class Invalidation:
    def __init__(self, *, outbox: Outbox, cache: Cache, near_doubt: float) -> None:
        """`near_doubt`: seconds for which another process may go on with a near copy while Redis is silent."""
        self._outbox = outbox
        self._cache = cache
        self._near_doubt = near_doubt

    async def deliver(self, owed: Sequence[Owed]) -> None:
        """Deliver, and wait until every process has heard of each invalidation. When this process could not tell Redis,
        try again, or wait until another one has, and until no near cache can still hold what it did not hear of. Never
        raises."""
        keys = {item.id: item.effect.key for item in owed if isinstance(item.effect, Invalidate)}
        invalidations = [item for item in owed if item.id in keys]
        others = [item for item in owed if item.id not in keys]
        undelivered, _ = await asyncio.gather(self._outbox.deliver(invalidations), self._outbox.deliver(others))
        if undelivered:
            await self._wait_for_anybody(invalidations)
        else:
            await self._cache.wait_until_heard(keys.values())

    async def _wait_for_anybody(self, owed: Sequence[Owed]) -> None:
        """Who tells Redis: a relay, or this process in another attempt. Relays may have to wait longer than an answer
        may: the stream is leased for seconds to a request that has ended, or its last attempt has just failed."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (left := until - time.monotonic()) > 0:
            if await self._outbox.applied_within(owed, min(left, AGAIN_SECONDS)):
                return await asyncio.sleep(self._near_doubt)
            if await self._tell(owed):
                return None
        return None

    async def _tell(self, owed: Sequence[Owed]) -> bool:
        """It stays owed all the same. Told twice, it does no harm."""
        due = [item.effect for item in owed if isinstance(item.effect, Invalidate) and not item.effect.delay]
        telling = (self._cache.invalidate(effect.key, effect.version, heard=effect.heard) for effect in due)
        if any(isinstance(result, BaseException) for result in await asyncio.gather(*telling, return_exceptions=True)):
            return False
        await self._cache.wait_until_heard([effect.key for effect in due])
        return True
