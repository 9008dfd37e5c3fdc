"""Users with tokens and conversations, put straight into the stores: 10,000 Argon2 hashes would take minutes."""

import hashlib
import random
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from config import Settings
from database.stores import open_stores
from models.base import new_id, now
from models.user import FullProfile

DRAWN = 20_000


@dataclass(frozen=True)
class User:
    id: uuid.UUID
    token: str
    conversation_id: uuid.UUID

    @property
    def name(self) -> str:
        return f"learner_{self.id.hex[-12:]}"


async def add_users(settings: Settings, count: int) -> list[User]:
    users = [User(new_id(), secrets.token_urlsafe(32), new_id()) for _ in range(count)]
    await _add_rows(settings, users)
    await _add_documents(settings, users)
    return users


def draw(users: Sequence[User], *, zipf: bool = False) -> list[User]:
    """In the order in which they send requests: all alike, or the n-th one n times more seldom than the first."""
    weights = [1 / (1 + number) for number in range(len(users))] if zipf else None
    return random.Random(7).choices(users, weights, k=DRAWN)


async def _add_rows(settings: Settings, users: Sequence[User]) -> None:
    connection = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    ends = now() + timedelta(days=1)
    rows: dict[tuple[str, ...], list[tuple[object, ...]]] = {
        ("users", "id", "username", "email", "password_hash"): [
            (user.id, user.name, f"{user.name}@example.com", "nobody signs in with it") for user in users
        ],
        ("profiles", "user_id", "display_name"): [(user.id, user.name) for user in users],
        ("sessions", "id", "user_id", "token_hash", "expires_at"): [
            (new_id(), user.id, hashlib.sha256(user.token.encode()).digest(), ends) for user in users
        ],
    }
    for (table, *columns), records in rows.items():
        await connection.copy_records_to_table(table, columns=columns, records=records)
    await connection.execute("ANALYZE")
    await connection.close()


async def _add_documents(settings: Settings, users: Sequence[User]) -> None:
    """A conversation for each, for the straightforward wiring one with its messages inside, and for the ceiling of one
    Redis GET a profile under the token."""
    patient = settings.model_copy(update={"redis_timeout": 30, "mongodb_timeout": 30})
    async with open_stores(patient) as stores:
        ids = [{"_id": str(user.conversation_id), "user_id": str(user.id)} for user in users]
        rest = {"title": "A weekend in Lisbon", "created_at": now(), "updated_at": now()}
        await stores.mongodb.database.conversations.insert_many([{**id_, **rest} for id_ in ids])
        await stores.mongodb.database.chats.insert_many([{**id_, **rest, "messages": []} for id_ in ids])
        await stores.redis.client.mset({f"Bearer {user.token}": profile_of(user) for user in users})


def profile_of(user: User) -> bytes:
    """What GET /users/me answers, as the ceilings have it."""
    profile = FullProfile(
        id=user.id,
        username=user.name,
        display_name=user.name,
        bio="",
        language="en",
        level="A1",
        created_at=now(),
        email=f"{user.name}@example.com",
        role="learner",
        version=1,
        updated_at=now(),
    )
    return profile.model_dump_json().encode()
