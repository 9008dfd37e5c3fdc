"""The fence: the scripts by which entries are read and written in Redis, and the calls to them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import AskError
from redis.typing import EncodableT

from tristore.cache.announcement import Announcement
from tristore.cache.batch import Batch
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.entries import Versioned, entry_of, hash_tag, keys_of
from tristore.cache.repeats import Repeats
from tristore.cache.spread import Answers, pipelined, spread
from tristore.errors import StoreUnavailable
from tristore.stores.lineage import Lineage
from tristore.stores.redis import SAME_HISTORY, RedisStore, learn_history, within_timeout
from tristore.stores.redis_cluster import Cluster

T = TypeVar("T")

TOMBSTONE_SECONDS = 60.0
ATTEMPTS = 3
"""At a write to a Redis that begins another history again and again, or at what moves to another server."""

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
        self._repeats = Repeats(redis.cluster, self.invalidate) if redis.cluster else None

    async def lease(self, key: str, token: str) -> bytes | bool:
        """The entry if there is one. Otherwise whether the caller now holds the lease."""
        answer = await self._lease((key, token))
        return answer if isinstance(answer, bytes) else bool(answer)

    async def fill(self, key: str, token: str, found: Versioned | None, seconds: float) -> bool:
        """Store for so many seconds what was read under the lease. False when a write came in between."""
        version = found.version if found else 0
        return bool(await self._fill((key, token, version, entry_of(found), _milliseconds(seconds))))

    async def release(self, key: str, token: str) -> None:
        await self._call(key, lambda client, keys: self._releasing(keys=keys, args=[token], client=client))

    async def invalidate(self, key: str, version: int, announcement: Announcement | None) -> int:
        """Put a tombstone and publish the announcement. Returns how many processes Redis told. The breaker does not
        refuse it, but learns from it."""
        arguments = [version, _milliseconds(TOMBSTONE_SECONDS)]
        taken_by = ""

        def invalidate(redis: RedisStore, history: str) -> Awaitable[int]:
            nonlocal taken_by
            told: tuple[str, ...] = ()
            taken_by = redis.identity.node
            if announcement:
                announcement.taken_by = taken_by
                told = redis.identity.channel(announcement.channel), announcement.text
            of_redis = history.partition(".")[0]
            keys = self._keys_of(history, key)
            return self._invalidating(keys=keys, args=[*arguments, of_redis, *told], client=redis.client)

        with self.breaker.watching():
            if before := self._lineage.recently:  # first: who hears the announcement must find this tombstone
                await self._invalidate_before(key, arguments, before)
            for _ in range(ATTEMPTS):
                if (count := await self._on_server(key, invalidate)) >= 0:
                    if self._repeats:
                        self._repeats.note(key, version, announcement, taken_by)
                    return count
                async with within_timeout(self._redis):
                    await learn_history(await self._server_of(key))
            raise StoreUnavailable("redis", "read only", "its connections lead to several histories")

    async def _invalidate_before(self, key: str, arguments: list[int], lineage: str) -> None:
        """For processes that have not learned of PostgreSQL's failover yet: they read under the old name."""
        async with within_timeout(self._redis):
            redis = await self._server_of(key)
            of_redis = redis.identity.history
            keys = self._keys_of(f"{of_redis}.{lineage}", key)
            await self._invalidating(keys=keys, args=[*arguments, of_redis], client=redis.client)

    async def delete(self, key: str) -> None:
        """Delete the entry and its lease."""
        await self._call(key, lambda client, keys: client.delete(*keys))

    async def close(self) -> None:
        """Wait for what is under way."""
        for batch in (self.read, self._lease, self._fill):
            await batch.close()
        if self._repeats:
            await self._repeats.close()

    async def _read(self, keys: list[str]) -> list[bytes | None]:
        if cluster := self._redis.cluster:
            return await self._on_servers(cluster, keys, lambda _, names: ("GET", names[0]))
        # The type of `mget` does not know that this client decodes nothing.
        return await self._on_server(
            "",
            lambda redis, history: cast(
                Awaitable[list[bytes | None]], redis.client.mget([self._keys_of(history, key)[0] for key in keys])
            ),
        )

    async def _lease_all(self, wanted: list[tuple[str, str]]) -> list[bytes | int]:
        """Of keys and tokens."""
        answers: list[bytes | int] = await self._run_for_all(
            self._leasing, [key for key, _ in wanted], [self._lease_milliseconds], [(token,) for _, token in wanted]
        )
        return answers

    async def _fill_all(self, wanted: list[tuple[str, str, int, bytes, int]]) -> list[int]:
        """Of keys, tokens, versions, entries and milliseconds."""
        answers: list[int] = await self._run_for_all(
            self._filling, [key for key, *_ in wanted], [], [one[1:] for one in wanted]
        )
        return answers

    async def _run_for_all(
        self,
        script: AsyncScript,
        keys: list[str],
        first: list[EncodableT],
        arguments: Sequence[Sequence[EncodableT]],
    ) -> Any:
        """`first` is for all keys, `arguments` are for each."""
        if cluster := self._redis.cluster:
            answers = await self._on_servers(
                cluster,
                keys,
                lambda i, names: ("EVALSHA", script.sha, len(names), *names, *first, *arguments[i]),
                script,
            )
            return [answer for [answer] in answers]
        return await self._on_server(
            "",
            lambda redis, history: script(
                keys=[name for key in keys for name in self._keys_of(history, key)],
                args=[*first, *(argument for each in arguments for argument in each)],
                client=redis.client,
            ),
        )

    async def _call(self, key: str, operation: Callable[[Redis, list[str]], Awaitable[object]]) -> None:
        """The operation gets the names of the entry and of its lease."""
        with self.breaker:
            await self._on_server(key, lambda redis, history: operation(redis.client, self._keys_of(history, key)))

    async def _server_of(self, key: str) -> RedisStore:
        cluster = self._redis.cluster
        return await cluster.server_of(hash_tag(key)) if cluster else self._redis

    async def _on_server(self, key: str, operation: Callable[[RedisStore, str], Awaitable[T]]) -> T:
        """The operation gets the server that has the key, and the history of its data and of PostgreSQL's. Without a
        cluster the key may be empty."""
        cluster, moved = self._redis.cluster, 0
        async with within_timeout(self._redis):
            while True:
                redis = await cluster.server_of(hash_tag(key)) if cluster else self._redis
                history = await self._learned(redis)
                try:
                    result = await operation(redis, history)
                except AskError:
                    moved += 1
                    if not cluster or moved == ATTEMPTS:
                        raise
                    cluster.doubt()
                    continue
                if history == self._history_of(redis) and (not cluster or redis is cluster.owner_of(hash_tag(key))):
                    return result
                # Redis was restarted in between, and what it brought back from disk is not ours; or PostgreSQL failed
                # over, and may have lost what was read. Ask again.

    async def _on_servers(
        self,
        cluster: Cluster[RedisStore],
        keys: list[str],
        command: Callable[[int, list[str]], tuple[EncodableT, ...]],
        script: AsyncScript | None = None,
    ) -> list[Any]:
        """`command` gets the number of a key and its names."""

        async def call(redis: RedisStore, numbers: list[int]) -> Answers:
            history = await self._learned(redis)
            commands = {number: command(number, self._keys_of(history, keys[number])) for number in numbers}
            answers = await pipelined(redis.client, commands, script)
            return answers if history == self._history_of(redis) else {}

        async with within_timeout(self._redis):
            return await spread(cluster, [hash_tag(key) for key in keys], call)

    async def _learned(self, redis: RedisStore) -> str:
        if not redis.identity.history:
            await redis.client.ping()  # connects, and so learns it
        return self._history_of(redis)

    def _history_of(self, redis: RedisStore) -> str:
        return ".".join(filter(None, (redis.identity.history, self._lineage.name)))

    def _keys_of(self, history: str, key: str) -> list[str]:
        return keys_of(key, self._format_number, history)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
