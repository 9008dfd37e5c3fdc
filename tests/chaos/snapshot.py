"""What the three stores hold, read with the raw drivers and past the proxies."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from config import Settings
from tristore.stores.lineage import NAME
from tristore.stores.redis import RETURNS

CACHE_KEY = re.compile(
    r"cache:\d+:(?P<history>[0-9A-Fa-f.-]+):\{(?P<kind>user|session):(?P<id>[^}]+)\}(?P<lease>:lease)?"
)
PROFILES = """
SELECT CAST(u.id AS text) AS id, username, email, role, version, language_preference AS language, cefr_level AS level,
       display_name, bio, erased_at, password_hash
FROM users u LEFT JOIN profiles p ON p.user_id = u.id
"""
SESSIONS = """
SELECT encode(token_hash, 'hex') AS token_hash, CAST(user_id AS text) AS user_id, revoked_at FROM sessions
"""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """Of the cache. `kind` v: a value, n: known not to exist, t: a tombstone."""

    of: str
    """user or session"""
    id: str
    kind: str
    version: int
    body: bytes


@dataclass(frozen=True)
class Snapshot:
    users: dict[str, Row]
    sessions: dict[str, Row]
    """By the token's hash."""
    outbox: Sequence[Row]
    streams: Sequence[Row]
    idempotency_keys: Sequence[Row]
    conversations: dict[str, Row]
    messages: dict[str, list[Row]]
    """Of each conversation, in the order of their numbers."""
    activity: dict[str, list[Row]]
    """Of each user, in the order in which it was written."""
    cache: Sequence[Entry]


async def query(settings: Settings, sql: str) -> list[Row]:
    connection = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    try:
        return [dict(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def take(settings: Settings, *, another_release: bool = False) -> Snapshot:
    """`another_release`: whether there was one, whose keys of the cache this one may not know."""
    users, sessions = await query(settings, PROFILES), await query(settings, SESSIONS)
    async with AsyncMongoClient[dict[str, Any]](settings.dsn("mongodb_dsn")) as client:
        database = client[settings.mongodb_database]
        conversations = await database.conversations.find({}).to_list(None)
        messages = await database.messages.find({}).sort([("conversation_id", 1), ("seq", 1)]).to_list(None)
        activity = {document["_id"]: document for document in await database.activity.find({}).to_list(None)}
        # A killed mongod applies its log anew, in parallel: only the log itself tells in which order it was written.
        logged = client.local["oplog.rs"].find({"op": "i", "ns": f"{database.name}.activity"}, {"o._id": 1})
        in_order = dict.fromkeys(entry["o"]["_id"] for entry in await logged.sort("$natural", 1).to_list(None))
    return Snapshot(
        users={row["id"]: row for row in users},
        sessions={row["token_hash"]: row for row in sessions},
        outbox=await query(settings, "SELECT * FROM outbox"),
        streams=await query(settings, "SELECT * FROM outbox_streams"),
        idempotency_keys=await query(settings, "SELECT key, CAST(user_id AS text) AS user_id FROM idempotency_keys"),
        conversations={document["_id"]: document for document in conversations},
        messages=grouped(messages, "conversation_id"),
        activity=grouped([activity[id_] for id_ in in_order if id_ in activity], "user_id"),
        cache=await _cache(settings, another_release),
    )


async def _cache(settings: Settings, another_release: bool) -> list[Entry]:
    """What the apps may read. Raises ValueError for a key that it cannot read: it would be checked no more."""
    entries = []
    [lineage] = await query(settings, NAME)
    async with redises(settings) as primaries:
        for history, redis in primaries.items():
            async for key in redis.scan_iter("cache:*", count=1000):
                match = CACHE_KEY.fullmatch(key.decode())
                if match is None and another_release:
                    continue
                if match is None:
                    raise ValueError(f"no key of the cache: {key!r}")
                value: Any = await redis.get(key)
                if value and not match["lease"] and match["history"] == f"{history}.{next(iter(lineage.values()))}":
                    head, _, body = value.partition(b":")
                    entries.append(Entry(match["kind"], match["id"], head[:1].decode(), int(head[1:]), body))
    return entries


@asynccontextmanager
async def redises(settings: Settings) -> AsyncIterator[Mapping[str, Redis]]:
    """The server, or all primaries of the cluster that it belongs to, by the history that names of keys have there."""
    dsn, found = settings.dsn("redis_dsn"), {}
    async with AsyncExitStack() as exits:
        first: Any = await exits.enter_async_context(Redis.from_url(dsn))
        if not (await first.info("cluster"))["cluster_enabled"]:
            more = [word.decode() for word in [await first.get(RETURNS)] if word]
            found["-".join([(await first.info("replication"))["master_replid"], *more])] = first
        else:
            for port in {int(owner[1]) for _, _, owner, *_ in await first.execute_command("CLUSTER SLOTS")}:
                redis: Any = await exits.enter_async_context(Redis.from_url(re.sub(r":\d+/", f":{port}/", dsn)))
                epoch = (await redis.execute_command("CLUSTER INFO"))["cluster_my_epoch"]
                found[f"{(await redis.info('replication'))['master_replid']}-{epoch}"] = redis
        yield found


def grouped(documents: Sequence[Row], by: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for document in documents:
        groups[document[by]].append(document)
    return groups
