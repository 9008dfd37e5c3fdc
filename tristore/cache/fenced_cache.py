"""A cache in Redis that never serves what is older than a write it was told of.

Whoever misses takes a load lease. What was loaded is stored only while its lease is there, and every write removes the
lease. So a value that was read before a write cannot be stored after it. This holds even when the entry has expired or
Redis was flushed in between, because then the lease is gone as well. The version in front of each entry keeps a late
write from undoing a newer fill.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tristore.cache.announcement import Announcement
from tristore.cache.direct_loads import DirectLoads
from tristore.cache.entries import Versioned, body_of, is_tombstone, is_value, version_of, versioned
from tristore.cache.feed import HEARD_SECONDS, Feed
from tristore.cache.fence import Fence
from tristore.cache.least_versions import LeastVersions
from tristore.cache.near import NearCache
from tristore.errors import StoreUnavailable
from tristore.stores.postgres import within_budget

POLL_SECONDS = 0.02
JITTER = 0.1
"""The part of its lifetime by which an entry may end earlier or later: entries of one moment do not end together."""
CHANGED = "cache:"
"""With the key behind it, the name by which the feed tells of a change."""


@dataclass(frozen=True)
class Loaded:
    found: Versioned | None
    stored: bool
    """Whether it went into the cache. If so, no write had come by that moment."""

    @property
    def version(self) -> int:
        return self.found.version if self.found else 0


Load = Callable[[], Awaitable[Versioned | None]]


class Outdated(Exception):
    """What Redis has is older than what this process has written."""


class FencedCache:
    """Keys are plain names such as `account:<id>`. Without a near cache every read asks Redis. Without a feed Redis is
    believed whenever it answers."""

    def __init__(
        self,
        fence: Fence,
        *,
        near: NearCache | None = None,
        feed: Feed | None = None,
        entry_seconds: float = 330,
        absent_seconds: float = 30,
        fallback_concurrency: int = 10,
    ) -> None:
        """`entry_seconds`: the longest time that an entry stays in Redis, jitter included. `absent_seconds`: for how
        long it is remembered that something does not exist. `fallback_concurrency`: how many loads may run at a time
        while Redis is down."""
        self._fence = fence
        self._near = near
        self._feed = feed
        self._least = LeastVersions(entry_seconds)
        self._absent_seconds = absent_seconds
        self._direct = DirectLoads[Versioned | None](fallback_concurrency)
        self._flights: dict[str, asyncio.Task[Loaded]] = {}
        self._announced: dict[str, Announcement] = {}
        self.counts: Counter[str] = Counter()
        if near and feed:
            feed.listen(self._drop_changed, near.clear)

    async def get_or_load(self, key: str, load: Load, ttl_seconds: float, near_seconds: float = 0) -> bytes | None:
        """The cached bytes, else what `load` finds. None when it does not exist. All processes together run one load of
        a key at a time. When Redis is down it loads from the source, a few at a time. Raises what `load` raises.

        Redis keeps an entry for `ttl_seconds`. With `near_seconds`, this process serves what it has read from Redis for
        so long without asking again. What it has loaded itself is not `ttl_seconds` old yet, so it may serve that up to
        twice as long. Either way nothing is served for longer than both times together."""
        if near_seconds and self._near and (body := self._near.get(key)) is not None:
            self.counts["near"] += 1
            return body
        if self._is_believed():
            try:
                return await self._get_or_load(key, load, ttl_seconds, near_seconds)
            except Outdated:
                self.counts["outdated"] += 1
            except StoreUnavailable as error:
                if error.store != "redis":
                    raise
        self.counts["fallback"] += 1
        found = await self._direct.load(key, load)
        return found.body if found else None

    async def lease(self, key: str) -> str | None:
        """The right to fill a key. Take it before the transaction commits whose result is to be filled in. None when
        somebody else has it, the key is cached, or Redis is down."""
        token = secrets.token_hex(8)
        try:
            return token if await self._fence.lease(key, token) is True else None
        except StoreUnavailable:
            return None

    async def fill(self, key: str, token: str, found: Versioned | None, ttl_seconds: float) -> bool:
        """Store what was read under the lease. False when a write came in between, and when Redis is down."""
        seconds = (ttl_seconds if found else self._absent_seconds) * random.uniform(1 - JITTER, 1 + JITTER)
        try:
            stored = await self._fence.fill(key, token, found, seconds)
        except StoreUnavailable:
            return False
        self.counts["filled" if stored else "refused"] += 1
        return stored

    async def release(self, key: str, token: str) -> None:
        """Give a lease back unused. When Redis is down it runs out by itself."""
        try:
            await self._fence.release(key, token)
        except StoreUnavailable:
            self.counts["lease_left_to_expire"] += 1

    def require(self, key: str, version: int) -> None:
        """From now on this process believes no older entry of Redis, until an invalidation has got through."""
        self._least.require(key, version)
        self._drop_near(key)

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        """Make every reader load a row of at least this version. Harmless when repeated or late. With `heard`, every
        process acknowledges it: see `wait_until_heard`. Raises StoreUnavailable when Redis is down: then it is owed.

        It is tried even while the breaker is open. A restarted Redis may already serve other processes, and they would
        read an old value until the breaker closes here. If Redis refuses the attempt, it was down after the commit, and
        whatever it will hold is loaded after that."""
        self.counts["invalidated"] += 1
        self.require(key, version)
        announcement = self._feed.announce(f"{CHANGED}{key}", acknowledged=heard) if self._feed else None
        try:
            told = await self._fence.invalidate(key, version, announcement)
        finally:
            # Now: what was read before this is not kept, and who reads after it finds the tombstone.
            self._drop_near(key)
        self._least.release(key, version)
        if announcement and heard:
            announcement.is_taken(told)
            self._announced[key] = announcement
            asyncio.get_running_loop().call_later(HEARD_SECONDS, self._forget_announcement, key, announcement)

    async def wait_until_heard(self, keys: Iterable[str]) -> None:
        """Wait until every process has heard of these invalidations, or believes Redis no more: at most a second."""
        if feed := self._feed:
            announced = [self._announced[key] for key in keys if key in self._announced]
            await asyncio.gather(*map(feed.wait_until_heard, announced))

    async def forget(self, key: str) -> None:
        """Remove an entry with its fence: for one that nobody will load again. Raises StoreUnavailable when Redis is
        down."""
        self._drop_near(key)
        await self._fence.delete(key)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._direct.close()
        await self._fence.close()

    def _is_believed(self) -> bool:
        # To be refused by the breaker, key by key, would cost as much as the query.
        return (
            not self._fence.breaker.refuses
            and self._least.is_complete
            and (self._feed is None or self._feed.is_alive())
        )

    async def _get_or_load(self, key: str, load: Load, ttl_seconds: float, near_seconds: float) -> bytes | None:
        if not (near_seconds and self._near):
            return (await self._find(key, load, ttl_seconds, near_seconds))[0]
        claim = self._near.claim(key)
        try:
            body, ceiling_seconds = await self._find(key, load, ttl_seconds, near_seconds)
            if ceiling_seconds and body is not None:
                self._near.keep(key, claim, body, ceiling_seconds)
            return body
        finally:
            self._near.release(key, claim)

    async def _find(self, key: str, load: Load, ttl_seconds: float, near_seconds: float) -> tuple[bytes | None, float]:
        """What was found, and for how many seconds the near cache may keep it. 0 unless Redis is known to have held it
        at some time since the call: only then a later change will be told."""
        # As it is now: an invalidation may get through before the answer of Redis arrives that was given before it.
        least, joined = self._least.of(key), False
        while True:
            entry = await self._fence.read(key)
            if entry and not is_tombstone(entry):
                _require(least, version_of(entry))
                self.counts["hit" if is_value(entry) else "absent"] += 1
                return body_of(entry), near_seconds
            flight = self._flights.get(key)
            if flight and not joined:
                # That load began before this read, so a write may have come between the two. Only a load that was
                # stored is known not to have missed one before that. A write after it has left a tombstone.
                joined = True
                loaded = await asyncio.shield(flight)
                if not loaded.stored or (entry and loaded.version < version_of(entry)):
                    continue
            else:
                loaded = await asyncio.shield(flight or self._start_flight(key, load, ttl_seconds))
            _require(least, loaded.version)
            may_be_near = loaded.stored and not joined
            ceiling_seconds = near_seconds + min(near_seconds, ttl_seconds) if may_be_near else 0
            return loaded.found.body if loaded.found else None, ceiling_seconds

    def _start_flight(self, key: str, load: Load, ttl_seconds: float) -> asyncio.Task[Loaded]:
        self.counts["miss"] += 1
        flight = self._flights[key] = asyncio.create_task(self._load_under_lease(key, load, ttl_seconds))
        flight.add_done_callback(lambda task: self._land(key, task))
        return flight

    def _land(self, key: str, flight: asyncio.Task[Loaded]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen, also when every reader has gone

    async def _load_under_lease(self, key: str, load: Load, ttl_seconds: float) -> Loaded:
        token = secrets.token_hex(8)
        entry = await self._take_lease(key, token)
        if entry is not None:
            return Loaded(versioned(entry), stored=False)
        try:
            found = await load()
        except BaseException:
            await self.release(key, token)  # or the next reader waits for a load that has failed
            raise
        return Loaded(found, stored=await self.fill(key, token, found, ttl_seconds))

    async def _take_lease(self, key: str, token: str) -> bytes | None:
        """None when the lease is ours, else the entry that somebody else has loaded meanwhile."""
        async with within_budget():  # whoever waits for another process's load waits for PostgreSQL
            while True:
                answer = await self._fence.lease(key, token)
                if isinstance(answer, bytes):
                    return answer
                if answer:
                    return None
                await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))

    def _forget_announcement(self, key: str, announcement: Announcement) -> None:
        if self._announced.get(key) is announcement:
            del self._announced[key]

    def _drop_near(self, key: str) -> None:
        if self._near:
            self._near.drop([key])

    def _drop_changed(self, names: Iterable[str]) -> None:
        if self._near:
            self._near.drop(name.removeprefix(CHANGED) for name in names if name.startswith(CHANGED))


def _require(least: int, version: int) -> None:
    if version < least:
        raise Outdated
