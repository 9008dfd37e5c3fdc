"""The fence: the scripts by which entries are read and written in Redis, and the calls to them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.typing import EncodableT

from tristore.cache.announcement import Announcement
from tristore.cache.batch import Batch
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned, entry_of, keys_of
from tristore.errors import StoreUnavailable
from tristore.stores.lineage import Lineage
from tristore.stores.redis import SAME_HISTORY, RedisStore, learn_history, within_timeout

T = TypeVar("T")

TOMBSTONE_SECONDS = 60.0
ATTEMPTS = 3
"""At a write to a Redis that begins another history again and again."""

# For each pair of keys: the entry; or 1 when the caller now holds the load lease; or 0 while somebody else holds it.
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
# Tells the processes also when the entry is new enough: a near cache may have an older one. Returns how many heard.
# -1 when nothing was done, because the data is of another history by now: readers look under other keys.
INVALIDATE = f"""{SAME_HISTORY}
if not is_same(ARGV[3]) then return -1 end
redis.call('DEL', KEYS[2])
local told = ARGV[4] and redis.call('PUBLISH', ARGV[4], ARGV[5]) or 0
local entry = redis.call('GET', KEYS[1])
if not entry or tonumber(string.match(entry, '^%a(%d+):')) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], 't' .. ARGV[1] .. ':', 'PX', ARGV[2])
end
return told
"""


class Fence:
    """Every method raises StoreUnavailable when Redis is down. Reads, leases and fills of one turn of the event loop go
    to Redis together."""

    def __init__(
        self,
        redis: RedisStore,
        breaker: CircuitBreaker,
        format_number: int = 1,
        lease_seconds: float = 3,
        lineage: Lineage | None = None,
    ) -> None:
        """`format_number` is part of each key. Raise it when the bytes of the entries get another shape. `lineage` is
        that of what is cached."""
        self._redis = redis
        self._lineage = lineage or Lineage()
        self.breaker = breaker
        self._format_number = format_number
        self._lease_milliseconds = _milliseconds(lease_seconds)
        self._leasing = redis.client.register_script(LEASE)
        self._filling = redis.client.register_script(FILL)
        self._releasing = redis.client.register_script(RELEASE)
        self._invalidating = redis.client.register_script(INVALIDATE)
        self.read = Batch(breaker, self._read)
        """The entry of a key, or None."""
        self._lease = Batch(breaker, self._lease_all)
        self._fill = Batch(breaker, self._fill_all)

    async def lease(self, key: str, token: str) -> bytes | bool:
        """The entry if there is one. Otherwise whether the caller now holds the lease."""
        answer = await self._lease((key, token))
        return answer if isinstance(answer, bytes) else bool(answer)

    async def fill(self, key: str, token: str, found: Versioned | None, seconds: float) -> bool:
        """Store for so many seconds what was read under the lease. False when a write came in between."""
        version = found.version if found else 0
        return bool(await self._fill((key, token, version, entry_of(found), _milliseconds(seconds))))

    async def release(self, key: str, token: str) -> None:
        await self._call(key, lambda _, keys: self._releasing(keys=keys, args=[token]))

    async def invalidate(self, key: str, version: int, announcement: Announcement | None) -> int:
        """Put a tombstone and publish the announcement. Returns how many processes Redis told. The breaker does not
        refuse it, but learns from it."""
        told = (announcement.channel, announcement.text) if announcement else ()
        arguments = [version, _milliseconds(TOMBSTONE_SECONDS)]

        def invalidate(_: Redis, history: str) -> Awaitable[int]:
            of_redis = history.partition(".")[0]
            return self._invalidating(keys=self._keys_of(history, key), args=[*arguments, of_redis, *told])

        with self.breaker.watching():
            if before := self._lineage.recently:  # first: who hears the announcement must find this tombstone
                await self._invalidate_before(key, arguments, before)
            for _ in range(ATTEMPTS):
                if (count := await self._on_server(invalidate)) >= 0:
                    return count
                async with within_timeout(self._redis):
                    await learn_history(self._redis)
            raise StoreUnavailable("redis", "read only", "its connections lead to several histories")

    async def _invalidate_before(self, key: str, arguments: list[int], lineage: str) -> None:
        """For processes that have not learned of PostgreSQL's failover yet: they read under the old name."""
        of_redis = self._redis.identity.history
        keys = self._keys_of(f"{of_redis}.{lineage}", key)
        async with within_timeout(self._redis):
            await self._invalidating(keys=keys, args=[*arguments, of_redis])

    async def delete(self, key: str) -> None:
        """Delete the entry and its lease."""
        await self._call(key, lambda client, keys: client.delete(*keys))

    async def close(self) -> None:
        """Wait for what is under way."""
        for batch in (self.read, self._lease, self._fill):
            await batch.close()

    async def _read(self, keys: list[str]) -> list[bytes | None]:
        # The type of `mget` does not know that this client decodes nothing.
        return await self._on_server(
            lambda client, history: cast(
                Awaitable[list[bytes | None]], client.mget([self._keys_of(history, key)[0] for key in keys])
            )
        )

    async def _lease_all(self, wanted: list[tuple[str, str]]) -> list[bytes | int]:
        """Of keys and tokens."""
        arguments: list[str | int] = [self._lease_milliseconds, *(token for _, token in wanted)]
        answers: list[bytes | int] = await self._run_for_all(self._leasing, [key for key, _ in wanted], arguments)
        return answers

    async def _fill_all(self, wanted: list[tuple[str, str, int, bytes, int]]) -> list[int]:
        """Of keys, tokens, versions, entries and milliseconds."""
        arguments: list[EncodableT] = []
        for _, token, version, entry, milliseconds in wanted:
            arguments += token, version, entry, milliseconds
        answers: list[int] = await self._run_for_all(self._filling, [key for key, *_ in wanted], arguments)
        return answers

    async def _run_for_all(self, script: AsyncScript, keys: list[str], arguments: Sequence[EncodableT]) -> Any:
        return await self._on_server(
            lambda _, history: script(
                keys=[name for key in keys for name in self._keys_of(history, key)], args=arguments
            )
        )

    async def _call(self, key: str, operation: Callable[[Redis, list[str]], Awaitable[object]]) -> None:
        """The operation gets the names of the entry and of its lease."""
        with self.breaker:
            await self._on_server(lambda client, history: operation(client, self._keys_of(history, key)))

    async def _on_server(self, operation: Callable[[Redis, str], Awaitable[T]]) -> T:
        """The operation gets the history of the server's data, and of PostgreSQL's."""
        async with within_timeout(self._redis):
            if not self._redis.identity.history:
                await self._redis.client.ping()  # connects, and so learns it
            while True:
                history = self._history
                result = await operation(self._redis.client, history)
                if history == self._history:
                    return result
                # Redis was restarted in between, and what it brought back from disk is not ours; or PostgreSQL failed
                # over, and may have lost what was read. Ask again.

    @property
    def _history(self) -> str:
        return ".".join(filter(None, (self._redis.identity.history, self._lineage.name)))

    def _keys_of(self, history: str, key: str) -> list[str]:
        return keys_of(key, self._format_number, history)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
