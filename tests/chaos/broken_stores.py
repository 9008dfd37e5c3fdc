"""Broken variants: what is written to a store, read from it, or asked of it in a wrong way."""

import uuid
from typing import Any

from sqlalchemy import text

from repositories.conversation_repo import ConversationRepository
from tristore.cache.entries import Versioned, body_of, entry_of
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache, Load
from tristore.errors import StoreUnavailable
from tristore.stores import mongodb, postgres, redis
from tristore.stores.mongodb import MongoStore
from tristore.stores.postgres import Postgres
from tristore.stores.redis import RedisStore

PLAIN_SET = "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"


class DelInsteadOfFence(FencedCache):
    """What most do: SET after a miss, DEL after a write."""

    async def get_or_load(self, key: str, load: Load, ttl_seconds: float, near_seconds: float = 0) -> bytes | None:
        try:
            entry = await self._fence.read(key)
        except StoreUnavailable:
            entry = None
        if entry:
            return body_of(entry)
        found = await load()
        await self.fill(key, "", found, ttl_seconds)
        return found.body if found else None

    async def lease(self, key: str) -> str | None:
        return "none"

    async def fill(self, key: str, token: str, found: Versioned | None, ttl_seconds: float) -> bool:
        arguments = entry_of(found), round(ttl_seconds * 1000)

        try:
            await self._fence._call(
                key, lambda client, keys: client.register_script(PLAIN_SET)(keys=keys[:1], args=arguments)
            )
        except StoreUnavailable:
            return False
        return True

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        await self.forget(key)


FILL_ALWAYS = """
local answers = {}
for i = 1, #KEYS, 2 do
  local token, version, filled, kept = unpack(ARGV, 2 * i - 1, 2 * i + 2)
  redis.call('DEL', KEYS[i + 1])
  redis.call('SET', KEYS[i], filled, 'PX', kept)
  answers[#answers + 1] = 1
end
return answers
"""


class FillIgnoresFence(Fence):
    """Stores what was loaded, whatever was written since: it looks at neither the lease nor the version."""

    def __init__(self, redis: RedisStore, *more: Any, **named: Any) -> None:
        super().__init__(redis, *more, **named)
        self._filling = redis.client.register_script(FILL_ALWAYS)


class ErasureOnce(ConversationRepository):
    """Erases for good at the first pass; there is no second."""

    async def erase(self, owner: uuid.UUID, *, for_good: bool) -> None:
        if not for_good:
            await super().erase(owner, for_good=True)


def only_ping() -> None:
    """Let every probe ask whether the store answers, and not whether it serves."""

    async def select(store: Postgres) -> None:
        with postgres.translate_errors():
            async with store.probe_engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def ping(store: RedisStore) -> None:
        with redis.translate_errors():
            await store.probe.ping()

    async def hello(store: MongoStore) -> None:
        with mongodb.translate_errors():
            await store.probe.admin.command("hello")

    for module, probe in ((postgres, select), (redis, ping), (mongodb, hello)):
        setattr(module, "ping", probe)  # noqa: B010 - mypy would compare them
