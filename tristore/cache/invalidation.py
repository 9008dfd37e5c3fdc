"""Ends what processes have copies of: when the answer comes, nobody goes on with an old one."""

import asyncio
from collections.abc import Sequence

from services.effects import InvalidateProfile, InvalidateSession
from tristore.cache.fenced_cache import FencedCache
from tristore.outbox.effects import Owed
from tristore.outbox.relay import Outbox

PATIENCE = 2.5
"""Seconds that the other processes' relays have for what this one cannot deliver: each polls once a second."""


class Invalidation:
    def __init__(self, *, outbox: Outbox, cache: FencedCache, near_doubt: float) -> None:
        """`near_doubt`: seconds for which another process may go on with a near copy while Redis is silent."""
        self._outbox = outbox
        self._cache = cache
        self._near_doubt = near_doubt

    async def deliver(self, owed: Sequence[Owed]) -> None:
        """Deliver, and wait until every process has heard of each invalidation. Where Redis could not be told: until
        another process has told it, and no near cache can have what it did not hear of any more. Never raises."""
        keys = {
            item.id: item.effect.key for item in owed if isinstance(item.effect, InvalidateProfile | InvalidateSession)
        }
        invalidations = [item for item in owed if item.id in keys]
        others = [item for item in owed if item.id not in keys]
        undelivered, _ = await asyncio.gather(self._outbox.deliver(invalidations), self._outbox.deliver(others))
        if not undelivered:
            await self._cache.wait_until_heard(keys.values())
        elif await self._outbox.applied_within(invalidations, PATIENCE):
            await asyncio.sleep(self._near_doubt)
