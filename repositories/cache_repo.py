"""Profiles and sessions in Redis: their keys, their formats, and how long they live."""

import uuid
from collections.abc import Awaitable
from dataclasses import dataclass

from models.session import SignedIn
from models.user import FullProfile
from tristore.cache.entries import Versioned
from tristore.cache.fenced_cache import FencedCache, Load

FORMAT = 1
"""Part of each key. Raise it when the cached bytes get another shape: a rolling deploy must not serve the old one."""
LIVING, ENDED = 1, 2
"""Versions of a session's copy. There is none after its end."""


@dataclass(frozen=True)
class Lifetime:
    in_redis_seconds: float
    near_seconds: float
    """In each process besides. 0 without a near cache."""


class CacheRepository:
    """Reads fall back to the source when Redis is down, and then leases are None: see FencedCache."""

    def __init__(self, cache: FencedCache, *, profiles: Lifetime, sessions: Lifetime) -> None:
        self._cache = cache
        self._profiles = profiles
        self._sessions = sessions

    # Not `async def`: a coroutine around another one would cost each request a microsecond.
    def profile(self, user_id: uuid.UUID, load: Load) -> Awaitable[bytes | None]:
        """A user's full profile, as the bytes of its JSON. None when there is no such user."""
        lifetime = self._profiles
        return self._cache.get_or_load(profile_key(user_id), load, lifetime.in_redis_seconds, lifetime.near_seconds)

    def session(self, token_hash: bytes, load: Load) -> Awaitable[bytes | None]:
        """Whose session this token has begun, as the JSON of a `SignedIn`. None when no living session has it."""
        lifetime = self._sessions
        return self._cache.get_or_load(session_key(token_hash), load, lifetime.in_redis_seconds, lifetime.near_seconds)

    async def lease_profile(self, user_id: uuid.UUID) -> str | None:
        """Take it before the commit: see FencedCache.lease."""
        return await self._cache.lease(profile_key(user_id))

    async def fill_profile(self, lease: str | None, profile: FullProfile) -> None:
        """Store a profile that was committed under the lease. Does nothing without a lease."""
        if lease:
            seconds = self._profiles.in_redis_seconds
            await self._cache.fill(profile_key(profile.id), lease, cached_profile(profile), seconds)

    async def lease_session(self, token_hash: bytes) -> str | None:
        """Take it before the commit: see FencedCache.lease."""
        return await self._cache.lease(session_key(token_hash))

    async def fill_session(self, lease: str | None, token_hash: bytes, who: SignedIn) -> None:
        """Store a session that was committed under the lease. Does nothing without a lease."""
        if lease:
            seconds = self._sessions.in_redis_seconds
            await self._cache.fill(session_key(token_hash), lease, cached_session(who), seconds)


def cached_profile(profile: FullProfile | None) -> Versioned | None:
    """The bytes that GET /users/me answers."""
    return Versioned(profile.version, profile.model_dump_json().encode()) if profile else None


def cached_session(who: SignedIn | None) -> Versioned | None:
    return Versioned(LIVING, who.model_dump_json().encode()) if who else None


def profile_key(user_id: uuid.UUID) -> str:
    return f"user:{user_id}"


def session_key(token_hash: bytes) -> str:
    return f"session:{token_hash.hex()}"
