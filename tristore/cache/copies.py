"""Copies of one kind of thing in the cache: under which key, in which format, for how long."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tristore.cache.entries import Versioned
from tristore.cache.fenced_cache import FencedCache

Id = TypeVar("Id")
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Lifetime:
    in_redis_seconds: float
    near_seconds: float
    """In each process besides, where there is a near cache."""


class Copies(Generic[Id, Thing]):
    """Reads fall back to the source when Redis is down, and then leases are None: see FencedCache."""

    def __init__(
        self, cache: FencedCache, lifetime: Lifetime, key: Callable[[Id], str], entry: Callable[[Thing], Versioned]
    ) -> None:
        self._cache = cache
        self._lifetime = lifetime
        self._key = key
        self._entry = entry

    # Not `async def`: a coroutine around another one would cost each request a microsecond.
    def get(self, id_: Id, load: Callable[[], Awaitable[Thing | None]]) -> Awaitable[bytes | None]:
        """The cached bytes, else those of what `load` finds. None when there is no such thing. Raises what `load`
        raises."""

        async def load_entry() -> Versioned | None:
            thing = await load()
            return None if thing is None else self._entry(thing)

        lifetime = self._lifetime
        return self._cache.get_or_load(self._key(id_), load_entry, lifetime.in_redis_seconds, lifetime.near_seconds)

    async def lease(self, id_: Id) -> str | None:
        """Take it before the commit: see FencedCache.lease."""
        return await self._cache.lease(self._key(id_))

    async def fill(self, lease: str | None, id_: Id, thing: Thing) -> None:
        """Store what was committed under the lease. Does nothing without a lease."""
        if lease:
            await self._cache.fill(self._key(id_), lease, self._entry(thing), self._lifetime.in_redis_seconds)
