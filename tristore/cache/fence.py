"""Cache-aside in Redis that never serves what is older than a write it was told of.

A miss takes a load lease. A fill is stored only while its lease is there, and every write removes the lease: a value
that was read before a write cannot be stored after it, not even when the key has expired or Redis was flushed in
between, because the lease went with it. The version in front of each entry keeps a late write from undoing a newer
fill.

Entry: `v<version>:<bytes>` a value, `n0:` known not to exist, `t<version>:` a tombstone (load it again).
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis

from tristore.cache.batch import Batch
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import HEARD_SECONDS, Announcement, WakeUpRepository
from tristore.cache.least_versions import LeastVersions
from tristore.cache.near import NearCache
from tristore.errors import StoreUnavailable
from tristore.stores.postgres import within_budget
from tristore.stores.redis import RedisStore, within_timeout

FORMAT = 1
"""Part of each key. Raise it when the shape of cached bytes changes: a rolling deploy must not serve the old one."""
TOMBSTONE_SECONDS = 60.0
POLL_SECONDS = 0.02

log = structlog.get_logger()

# For each pair of keys: the entry, or 1 when the caller now holds the load lease, or 0 while somebody else does.
LEASE = """
local answers = {}
for i = 1, #KEYS, 2 do
  local answer = redis.call('GET', KEYS[i])
  if not answer or string.sub(answer, 1, 1) == 't' then
    answer = redis.call('SET', KEYS[i + 1], ARGV[#answers + 2], 'NX', 'PX', ARGV[1]) and 1 or 0
  end
  answers[#answers + 1] = answer
end
return answers
"""
# For each pair of keys: 1 when stored, 0 when a write came in between.
FILL = """
local answers = {}
for i = 1, #KEYS, 2 do
  local token, version, filled, kept = unpack(ARGV, 2 * i - 1, 2 * i + 2)
  local answer = 0
  if redis.call('GET', KEYS[i + 1]) == token then
    redis.call('DEL', KEYS[i + 1])
    local entry = redis.call('GET', KEYS[i])
    if not entry or tonumber(string.match(entry, '^%a(%d+):')) <= tonumber(version) then
      redis.call('SET', KEYS[i], filled, 'PX', kept)
      answer = 1
    end
  end
  answers[#answers + 1] = answer
end
return answers
"""
RELEASE = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 0
"""
# Tells the processes also when the entry is new enough: a near cache may have one from before. Returns how many heard.
INVALIDATE = """
redis.call('DEL', KEYS[2])
local told = ARGV[3] and redis.call('PUBLISH', ARGV[3], ARGV[4]) or 0
local entry = redis.call('GET', KEYS[1])
if not entry or tonumber(string.match(entry, '^%a(%d+):')) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], 't' .. ARGV[1] .. ':', 'PX', ARGV[2])
end
return told
"""


@dataclass(frozen=True)
class Versioned:
    """What a load found: the bytes to cache, and the version of the row they were made from."""

    version: int
    body: bytes


@dataclass(frozen=True)
class Loaded:
    found: Versioned | None
    stored: bool
    """Whether it went into the cache: then no write had come by until that moment."""

    @property
    def version(self) -> int:
        return self.found.version if self.found else 0


Load = Callable[[], Awaitable[Versioned | None]]


class Outdated(Exception):
    """What Redis has is older than what this process has written."""


class CacheRepository:
    """Keys are plain names such as `user:<id>`. Times are seconds. Without a near cache every read asks Redis; without
    a feed Redis is believed whenever it answers."""

    def __init__(
        self,
        redis: RedisStore,
        breaker: CircuitBreaker,
        *,
        near: NearCache | None = None,
        feed: WakeUpRepository | None = None,
        entry_seconds: float = 330,
        lease_seconds: float = 3,
        absent_ttl: float = 30,
        fallback_concurrency: int = 10,
    ) -> None:
        """`entry_seconds`: the longest that an entry stays in Redis."""
        self._redis = redis
        self.breaker = breaker
        self._near = near
        self._feed = feed
        self._least = LeastVersions(entry_seconds)
        self._announced: dict[str, Announcement] = {}
        self._read = Batch(breaker, self._read_many)
        self._lease = Batch(breaker, self._lease_many)
        self._fill = Batch(breaker, self._fill_many)
        self._lease_seconds = lease_seconds
        self._absent_ttl = absent_ttl
        self._fallback = asyncio.Semaphore(fallback_concurrency)
        self._flights: dict[str, asyncio.Task[Loaded]] = {}
        self._unfenced: dict[str, asyncio.Future[None]] = {}
        self._next: dict[str, asyncio.Task[Versioned | None]] = {}
        self._leasing = redis.client.register_script(LEASE)
        self._filling = redis.client.register_script(FILL)
        self._release = redis.client.register_script(RELEASE)
        self._invalidate = redis.client.register_script(INVALIDATE)
        self.counts: Counter[str] = Counter()

    async def get_or_load(self, key: str, load: Load, ttl: float, near: float = 0) -> bytes | None:
        """The cached bytes, else what `load` finds; None when it does not exist. One load a key at a time, over all
        processes. When Redis is down: loads from the source, a bounded number at once. With `near`, this process keeps
        what it read from Redis for so long at most, and what it loaded itself, which is not up to `ttl` old already,
        for twice as long: either way it is served for no more than both times together."""
        if near and self._near and (body := self._near.get(key)) is not None:
            self.counts["near"] += 1
            return body
        if self._is_believed():
            try:
                return await self._get_or_load(key, load, ttl, near)
            except Outdated:
                self.counts["outdated"] += 1
            except StoreUnavailable as error:
                if error.store != "redis":
                    raise
        self.counts["fallback"] += 1
        return await self._load_without_redis(key, load)

    def _is_believed(self) -> bool:
        # To be refused by the breaker, key by key, would cost as much as the query.
        return not self.breaker.refuses and self._least.is_complete and (self._feed is None or self._feed.is_alive())

    async def _get_or_load(self, key: str, load: Load, ttl: float, near: float) -> bytes | None:
        if not (near and self._near):
            return (await self._find(key, load, ttl, near))[0]
        claim = self._near.claim(key)
        try:
            body, ceiling = await self._find(key, load, ttl, near)
            if ceiling and body is not None:
                self._near.keep(key, claim, body, ceiling)
            return body
        finally:
            self._near.let_go(key, claim)

    async def _find(self, key: str, load: Load, ttl: float, near: float) -> tuple[bytes | None, float]:
        """Also for how long it may be near: not at all, unless Redis is known to have held it at some time since the
        call. Then a later change will be told."""
        # As it is now: an invalidation may get through before the answer of Redis, which was given before that, comes.
        least, joined = self._least.of(key), False
        while True:
            entry = await self._read(key)
            if entry and not entry.startswith(b"t"):
                _require(least, _version(entry))
                self.counts["hit" if entry.startswith(b"v") else "absent"] += 1
                return _body(entry), near
            flight = self._flights.get(key)
            if flight and not joined:
                # That load began before this read, so a write may have come between the two. Only a load that was
                # stored is known not to have missed one before that; of one after it the tombstone tells.
                joined = True
                loaded = await asyncio.shield(flight)
                if not loaded.stored or (entry and loaded.version < _version(entry)):
                    continue
            else:
                loaded = await asyncio.shield(flight or self._start_flight(key, load, ttl))
            _require(least, loaded.version)
            may_be_near = loaded.stored and not joined
            return loaded.found.body if loaded.found else None, near + min(near, ttl) if may_be_near else 0

    async def _read_many(self, keys: list[str]) -> list[bytes | None]:
        entries: list[bytes | None] = await self._on_server(
            lambda client, run_id: client.mget([names_of(run_id, key)[0] for key in keys])
        )
        return entries

    async def _lease_many(self, wanted: list[tuple[str, str]]) -> list[bytes | int]:
        """Of keys and tokens."""
        arguments = [_milliseconds(self._lease_seconds), *(token for _, token in wanted)]
        answers: list[bytes | int] = await self._run_for_all(self._leasing, [key for key, _ in wanted], arguments)
        return answers

    async def _fill_many(self, wanted: list[tuple[str, str, int, bytes, int]]) -> list[int]:
        """Of keys, tokens, versions, entries and milliseconds."""
        arguments = [argument for _, *arguments in wanted for argument in arguments]
        answers: list[int] = await self._run_for_all(self._filling, [key for key, *_ in wanted], arguments)
        return answers

    async def _run_for_all(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        return await self._on_server(
            lambda _, run_id: script(keys=[name for key in keys for name in names_of(run_id, key)], args=arguments)
        )

    def _start_flight(self, key: str, load: Load, ttl: float) -> asyncio.Task[Loaded]:
        self.counts["miss"] += 1
        flight = self._flights[key] = asyncio.create_task(self._load_under_lease(key, load, ttl))
        flight.add_done_callback(lambda task: self._land(key, task))
        return flight

    def _land(self, key: str, flight: asyncio.Task[Loaded]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen, also when every reader has gone

    async def _load_under_lease(self, key: str, load: Load, ttl: float) -> Loaded:
        token = secrets.token_hex(8)
        entry = await self._take_lease(key, token)
        if entry is not None:
            return Loaded(_versioned(entry), stored=False)
        try:
            found = await load()
        except BaseException:
            await self.release(key, token)  # or the next reader waits for a load that has failed
            raise
        return Loaded(found, stored=await self.fill(key, token, found, ttl))

    async def _take_lease(self, key: str, token: str) -> bytes | None:
        """None when the lease is ours, else the entry that somebody else has loaded meanwhile."""
        async with within_budget():  # whoever waits for another process's load waits for PostgreSQL
            while True:
                answer = await self._lease((key, token))
                if isinstance(answer, bytes):
                    return answer
                if answer:
                    return None
                await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))

    async def _load_without_redis(self, key: str, load: Load) -> bytes | None:
        """One load of a key at a time. Who asks meanwhile shares the next one with others: what is under way may have
        been read before a write that the asker knows of."""
        under_way = self._unfenced.get(key)
        if under_way is None:
            found = await self._load_alone(key, load)
        else:
            if key not in self._next:
                self._next[key] = asyncio.create_task(self._load_next(key, load, under_way))
                self._next[key].add_done_callback(lambda task: task.cancelled() or task.exception())
            found = await asyncio.shield(self._next[key])
        return found.body if found else None

    async def _load_next(self, key: str, load: Load, under_way: asyncio.Future[None]) -> Versioned | None:
        try:
            async with within_budget():
                await asyncio.wait([under_way])
        finally:
            del self._next[key]  # whoever comes from now on comes after this load has begun
        return await self._load_alone(key, load)

    async def _load_alone(self, key: str, load: Load) -> Versioned | None:
        done = self._unfenced[key] = asyncio.get_running_loop().create_future()
        try:
            async with within_budget() if self._fallback.locked() else nullcontext():
                await self._fallback.acquire()
            try:
                return await load()
            finally:
                self._fallback.release()
        finally:
            done.set_result(None)
            if self._unfenced.get(key) is done:
                del self._unfenced[key]

    async def lease(self, key: str) -> str | None:
        """The right to fill a key, to be taken before the transaction whose result will be filled in commits. None
        when somebody else has it, the key is cached, or Redis is down."""
        token = secrets.token_hex(8)
        try:
            return token if await self._lease((key, token)) == 1 else None
        except StoreUnavailable:
            return None

    async def fill(self, key: str, token: str, found: Versioned | None, ttl: float) -> bool:
        """Store what was read under the lease. False when a write came in between; so too when Redis is down."""
        entry = b"v%d:%b" % (found.version, found.body) if found else b"n0:"
        kept = _milliseconds(_jittered(ttl if found else self._absent_ttl))
        try:
            stored = bool(await self._fill((key, token, found.version if found else 0, entry, kept)))
        except StoreUnavailable:
            return False
        self.counts["filled" if stored else "refused"] += 1
        return stored

    async def release(self, key: str, token: str) -> None:
        """Give a lease back unused. When Redis is down it runs out by itself."""
        try:
            await self._call(key, lambda _, names: self._release(keys=names, args=[token]))
        except StoreUnavailable:
            self.counts["lease_left_to_expire"] += 1

    def require(self, key: str, version: int) -> None:
        """From now on this process believes no older entry of Redis, until an invalidation has got through."""
        self._least.require(key, version)
        self._drop_near(key)

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        """Make every reader load a row of at least this version. Harmless when repeated or late. With `heard`, every
        process acknowledges it: see `wait_until_heard`. Raises StoreUnavailable when Redis is down: then it is owed.

        Tried even while the breaker is open. When a restarted Redis already serves other processes, an old value would
        be read there until the breaker closes here; when the attempt is refused, Redis was down after the commit, and
        what it will hold is loaded after it."""
        self.counts["invalidated"] += 1
        self.require(key, version)
        told = self._announce(key, heard)
        arguments = [version, _milliseconds(TOMBSTONE_SECONDS), *((told.channel, told.text) if told else ())]
        try:
            with self.breaker.watching():
                count = await self._on_server(
                    lambda _, run_id: self._invalidate(keys=names_of(run_id, key), args=arguments)
                )
        finally:
            # Now: what was read before this is not kept, and who reads after it finds the tombstone.
            self._drop_near(key)
        self._least.release(key, version)
        if told:
            told.note(expected=count)

    async def wait_until_heard(self, keys: Iterable[str]) -> None:
        """Wait until every process has heard of these invalidations, or believes Redis no more: at most a second."""
        await asyncio.gather(*(self._announced[key].wait() for key in keys if key in self._announced))

    def _announce(self, key: str, heard: bool) -> Announcement | None:
        if self._feed is None:
            return None
        announcement = self._feed.announce(f"cache:{key}", acknowledged=heard)
        if heard:
            self._announced[key] = announcement
            asyncio.get_running_loop().call_later(HEARD_SECONDS, self._forget_announcement, key, announcement)
        return announcement

    def _forget_announcement(self, key: str, announcement: Announcement) -> None:
        if self._announced.get(key) is announcement:
            del self._announced[key]

    async def forget(self, key: str) -> None:
        """Remove an entry with its fence: for one that nobody will load again. Raises StoreUnavailable when Redis is
        down."""
        self._drop_near(key)
        await self._call(key, lambda client, names: client.delete(*names))

    async def get(self, key: str) -> bytes | None:
        """A plain value that nothing fences. When Redis is down: None, as if it were not there."""
        try:
            value: bytes | None = await self._call(key, lambda client, names: client.get(names[0]))
            return value
        except StoreUnavailable:
            return None

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a plain value for `ttl` seconds. When Redis is down: it is not kept."""
        try:
            await self._call(key, lambda client, names: client.set(names[0], value, px=_milliseconds(ttl)))
        except StoreUnavailable:
            self.counts["not_kept"] += 1

    async def delete(self, key: str) -> None:
        """Drop a plain value. Raises StoreUnavailable when Redis is down: the value would still be there after."""
        await self._call(key, lambda client, names: client.delete(names[0]))

    async def exists(self, key: str) -> bool:
        """Whether a plain value is there. When Redis is down: False."""
        try:
            return bool(await self._call(key, lambda client, names: client.exists(names[0])))
        except StoreUnavailable:
            return False

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._flights.values(), *self._next.values(), return_exceptions=True)
        for batch in (self._read, self._lease, self._fill):
            await batch.close()

    def _drop_near(self, key: str) -> None:
        if self._near:
            self._near.drop([key])

    async def _call(self, key: str, operation: Callable[[Redis, list[str]], Awaitable[Any]]) -> Any:
        with self.breaker:
            return await self._on_server(lambda client, run_id: operation(client, names_of(run_id, key)))

    async def _on_server(self, operation: Callable[[Redis, str], Awaitable[Any]]) -> Any:
        identity = self._redis.identity
        async with within_timeout(self._redis):
            if not identity.run_id:
                await self._redis.client.ping()  # connects, and so learns it
            while True:
                run_id = identity.run_id
                result = await operation(self._redis.client, run_id)
                if run_id == identity.run_id:
                    return result
                # Redis was restarted in between, and what it brought back from disk is not ours: ask again.


def names_of(run_id: str, key: str) -> list[str]:
    """The entry's key and its lease's, in one hash slot."""
    name = f"cache:{FORMAT}:{run_id}:{{{key}}}"
    return [name, f"{name}:lease"]


def _require(least: int, version: int) -> None:
    if version < least:
        raise Outdated


def _version(entry: bytes) -> int:
    return int(entry.partition(b":")[0][1:])


def _body(entry: bytes) -> bytes | None:
    return entry.partition(b":")[2] if entry.startswith(b"v") else None


def _versioned(entry: bytes) -> Versioned | None:
    head, _, body = entry.partition(b":")
    return Versioned(int(head[1:]), body) if head.startswith(b"v") else None


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.9, 1.1)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
