"""What was invalidated a moment ago in a cluster, for when its slot turns out to have another server."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tristore.cache.announcement import Announcement
from tristore.cache.entries import hash_tag
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore
from tristore.stores.redis_cluster import CONFIRMED_SECONDS, Cluster

SECONDS = 3 * CONFIRMED_SECONDS
MOST = 10_000


@dataclass(frozen=True)
class Sent:
    key: str
    version: int
    announcement: Announcement | None
    to: str
    """The server's name."""
    at: float


class Repeats:
    """A primary that was cut off takes writes until it knows it, and the map holds for a second. In that time this
    process tells it what others will read from the one that was promoted. So when the map changes, what was sent to
    another server than the present one is sent again."""

    def __init__(
        self, cluster: Cluster[RedisStore], invalidate: Callable[[str, int, Announcement | None], Awaitable[object]]
    ) -> None:
        self._cluster = cluster
        self._invalidate = invalidate
        self._sent: deque[Sent] = deque(maxlen=MOST)
        self._under_way: set[asyncio.Task[None]] = set()
        cluster.listen(self._repeat)

    def note(self, key: str, version: int, announcement: Announcement | None, to: str) -> None:
        now = time.monotonic()
        while self._sent and self._sent[0].at < now - SECONDS:
            self._sent.popleft()
        self._sent.append(Sent(key, version, announcement, to, now))

    async def close(self) -> None:
        """Wait for what is under way."""
        self._cluster.forget(self._repeat)
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _repeat(self) -> None:
        since, sent = time.monotonic() - SECONDS, list(self._sent)
        self._sent.clear()
        for one in sent:
            owner = self._cluster.owner_of(hash_tag(one.key))
            if owner and owner.identity.node == one.to:
                self._sent.append(one)
            elif one.at >= since:
                task = asyncio.create_task(self._send_again(one))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def _send_again(self, one: Sent) -> None:
        """The new server may not answer at once."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            try:
                await self._invalidate(one.key, one.version, one.announcement)
                return
            except StoreUnavailable:
                await asyncio.sleep(0.1)
