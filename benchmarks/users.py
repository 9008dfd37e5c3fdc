"""Users with tokens and conversations, put straight into the stores: 10,000 Argon2 hashes would take minutes."""

import hashlib
import random
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg

from config import Settings
from models.base import FORMAT
from models.session import SignedIn
from models.user import FullProfile
from repositories.cache_repo import cached_session, profile_key, session_key
from tristore.cache.entries import Versioned, entry_of, keys_of
from tristore.cache.feed import CHANNEL
from tristore.cache.fenced_cache import CHANGED
from tristore.models import new_id, now
from tristore.stores.stores import open_stores

DRAWN = 20_000
BATCH = 5_000
CONTENT = "Combien ça coûte ?"
MOST_INSIDE = 10_000
"""Messages that the straightforward wiring's documents take: 100,000 are more than MongoDB changes at once."""


@dataclass(frozen=True)
class User:
    id: uuid.UUID
    token: str
    conversation_id: uuid.UUID
    session_id: uuid.UUID

    @property
    def token_hash(self) -> bytes:
        return hashlib.sha256(self.token.encode()).digest()

    @property
    def name(self) -> str:
        return f"learner_{self.id.hex[-12:]}"


async def add_users(settings: Settings, count: int) -> list[User]:
    users = [User(new_id(), secrets.token_urlsafe(32), new_id(), new_id()) for _ in range(count)]
    await _add_rows(settings, users)
    await _add_documents(settings, users)
    return users


def draw(users: Sequence[User], *, zipf: bool = False) -> list[User]:
    """In the order in which they send requests: all alike, or the n-th one n times more seldom than the first."""
    weights = [1 / (1 + number) for number in range(len(users))] if zipf else None
    return random.Random(7).choices(users, weights, k=DRAWN)


async def fill_caches(settings: Settings, users: Sequence[User]) -> None:
    """Put into Redis what sign-in and reading leave there, session and profile of each, and tell the near caches that
    it is new: what they kept a round ago would else end in the middle of the next."""
    patient = settings.model_copy(update={"redis_timeout": 30})
    names: list[str] = []
    async with open_stores(patient) as stores:
        await stores.redis.client.ping()  # connects, and so learns which server it is
        async with stores.redis.client.pipeline(transaction=False) as pipeline:
            for user in users:
                session = cached_session(SignedIn(session_id=user.session_id, user_id=user.id))
                for key, found, ttl in (
                    (session_key(user.token_hash), session, settings.cache_session_ttl),
                    (profile_key(user.id), Versioned(1, profile_of(user)), settings.cache_profile_ttl),
                ):
                    name = keys_of(key, FORMAT, stores.redis.identity.history)[0]
                    pipeline.set(name, entry_of(found), ex=int(ttl))
                    names.append(f"{CHANGED}{key}")
            for first in range(0, len(names), 500):  # one by one they would keep the servers busy for seconds
                pipeline.publish(CHANNEL, " ".join(("benchmark", *names[first : first + 500])))
            await pipeline.execute()


async def _add_rows(settings: Settings, users: Sequence[User]) -> None:
    connection = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    ends = now() + timedelta(days=1)
    rows: dict[tuple[str, ...], list[tuple[object, ...]]] = {
        ("users", "id", "username", "email", "password_hash"): [
            (user.id, user.name, f"{user.name}@example.com", "nobody signs in with it") for user in users
        ],
        ("profiles", "user_id", "display_name"): [(user.id, user.name) for user in users],
        ("sessions", "id", "user_id", "token_hash", "expires_at"): [
            (user.session_id, user.id, user.token_hash, ends) for user in users
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


async def add_messages(database: Any, conversation_id: str, count: int) -> None:
    """As documents of their own, and inside the conversation as far as the straightforward wiring can."""
    inside = []
    for start in range(0, count, BATCH):
        texts = {"role": "user", "content": CONTENT, "metadata": {}, "timestamp": now()}
        messages = [{"id": str(new_id()), **texts} for _ in range(start, min(start + BATCH, count))]
        documents = [
            {
                "_id": f"{conversation_id}/{message['id']}",
                "conversation_id": conversation_id,
                "seq": start + number,
                **message,
            }
            for number, message in enumerate(messages, 1)
        ]
        await database.messages.insert_many(documents)
        inside += messages
    if count <= MOST_INSIDE:
        await database.chats.update_one({"_id": conversation_id}, {"$set": {"messages": inside}})


async def add_conversations(database: Any, user: User, count: int) -> None:
    """Without messages, in both ways."""
    times = {"created_at": now(), "updated_at": now()}
    more = [
        {"_id": str(new_id()), "user_id": str(user.id), "title": "A weekend in Lisbon", **times} for _ in range(count)
    ]
    await database.conversations.insert_many(more)
    await database.chats.insert_many([{**document, "messages": []} for document in more])


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
        email_verified=False,
        role="learner",
        disabled=False,
        version=1,
        updated_at=now(),
    )
    return profile.model_dump_json().encode()
