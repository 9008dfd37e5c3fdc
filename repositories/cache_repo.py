"""Profiles and sessions in Redis: their keys, their formats, and how long they live."""

import uuid

from models.session import SignedIn
from models.user import FullProfile
from tristore.cache.copies import Copies, Lifetime
from tristore.cache.entries import Versioned
from tristore.cache.fenced_cache import FencedCache

LIVING, ENDED = 1, 2
"""Versions of a session's copy. There is none after its end."""


class CacheRepository:
    """`profiles`, by the user's id: the JSON of a FullProfile, which GET /users/me answers. `sessions`, by the token's
    hash: the JSON of a SignedIn."""

    def __init__(self, cache: FencedCache, *, profiles: Lifetime, sessions: Lifetime) -> None:
        self.profiles = Copies(cache, profiles, profile_key, cached_profile)
        self.sessions = Copies(cache, sessions, session_key, cached_session)


def cached_profile(profile: FullProfile) -> Versioned:
    return Versioned(profile.version, profile.model_dump_json().encode())


def cached_session(who: SignedIn) -> Versioned:
    return Versioned(LIVING, who.model_dump_json().encode())


def profile_key(user_id: uuid.UUID) -> str:
    return f"user:{user_id}"


def session_key(token_hash: bytes) -> str:
    return f"session:{token_hash.hex()}"
