"""What FastAPI and the drivers can do at all: bare routes, each with the least that its work needs.

Written as fast as one can: no middleware, no validation, nothing injected, no error handled. The writes send the stores
what the app sends them. SPARED=yes: garbage is collected as seldom as in the app; otherwise as Python does it.
"""

import asyncio
import json
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, Request, Response
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from redis.asyncio import Redis
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import postgresql

from benchmarks.users import User as BenchmarkUser
from benchmarks.users import profile_of
from config import get_settings
from repositories.user_repo import ADD
from services.user_service import WELCOME_TITLE
from tristore.cache.fence import FILL, LEASE
from tristore.models import new_id, now
from tristore.ops.process import spare_collections
from tristore.outbox.relay import STREAMS_AT_ONCE
from tristore.outbox.repository import FIRST_DELAY, LEASE_TIME, LONGEST_DELAY, PATIENT, STUCK
from tristore.outbox.statements import RECORD, SETTLE
from tristore.passwords import PasswordHasher

ANSWER = profile_of(BenchmarkUser(new_id(), "", new_id(), new_id()))
CONNECTIONS = 64
MESSAGE = ("id", "seq", "role", "content", "timestamp", "metadata")


CLIENTS: dict[str, Any] = {"motor": AsyncIOMotorClient, "pymongo": AsyncMongoClient}
asyncpg_dialect: Any = postgresql.asyncpg.dialect


class Statement:
    """A statement of the app's, compiled once for asyncpg."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=asyncpg_dialect())
        self.text = str(compiled)
        self._names: list[str] = compiled.positiontup

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        return [values[name] for name in self._names]


ADD_USER = Statement(ADD)
ADD_OWED, SETTLE_OWED = Statement(RECORD), Statement(SETTLE)


class Drivers:
    def __init__(self, postgres: "asyncpg.Pool[asyncpg.Record]", redis: Redis, mongodb: Any) -> None:
        self.postgres, self.redis, self.mongodb = postgres, redis, mongodb
        self.lease, self.fill = redis.register_script(LEASE), redis.register_script(FILL)
        self.hasher = PasswordHasher("chatlingo")
        self.numbers: Counter[str] = Counter()
        self.unsettled: asyncio.Queue[tuple[str, uuid.UUID, list[int]]] = asyncio.Queue()

    async def settle(self) -> None:
        """Like the app: some at a time, beside the requests."""
        while True:
            owed = [await self.unsettled.get()]
            while len(owed) < STREAMS_AT_ONCE and not self.unsettled.empty():
                owed.append(self.unsettled.get_nowait())
            values = {
                "aggregates": [aggregate for aggregate, _, _ in owed],
                "stores": ["mongodb"] * len(owed),
                "tokens": [token for _, token, _ in owed],
                **dict.fromkeys(("errors", "waits", "withins"), [None] * len(owed)),
                "refused": [False] * len(owed),
                "ids": [id_ for _, _, ids in owed for id_ in ids],
                "max_attempts": 12,
                "patient": PATIENT,
                "stuck": STUCK,
                "first": FIRST_DELAY,
                "longest": LONGEST_DELAY,
            }
            await self.postgres.fetch(SETTLE_OWED.text, *SETTLE_OWED.arguments(values))


async def _leave_as_is(connection: object) -> None:
    """asyncpg's own reset would cost a round trip at each release."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    dsn = settings.dsn("postgres_dsn").replace("+asyncpg", "")
    async with AsyncExitStack() as exits:
        pool = await exits.enter_async_context(asyncpg.create_pool(dsn, min_size=20, max_size=20, reset=_leave_as_is))
        redis = await exits.enter_async_context(Redis.from_url(settings.dsn("redis_dsn"), max_connections=CONNECTIONS))
        client: Any = CLIENTS[settings.mongodb_driver](
            settings.dsn("mongodb_dsn"), w="majority", journal=True, tz_aware=True
        )
        app.state.drivers = Drivers(pool, redis, client[settings.mongodb_database])
        settling = asyncio.create_task(app.state.drivers.settle())
        if os.environ.get("SPARED"):
            spare_collections()
        yield
        settling.cancel()


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.get("/health/live")
async def bare() -> Response:
    return Response(ANSWER, media_type="application/json")


@app.get("/redis")
async def one_redis_get(request: Request) -> Response:
    body = await request.app.state.drivers.redis.get(request.headers["authorization"])
    return Response(body, media_type="application/json")


@app.get("/row/{id}")
async def one_raw_row(request: Request) -> Response:
    row = await request.app.state.drivers.postgres.fetchrow(
        "SELECT username, email FROM users WHERE id = $1", request.path_params["id"]
    )
    return Response(ANSWER if row else b"", media_type="application/json")


@app.post("/hash")
async def only_hash(request: Request) -> Response:
    """With the app's threads: two that hash in one core's caches take longer than one."""
    sent = json.loads(await request.body())
    hashed = await request.app.state.drivers.hasher.hash(SecretStr(sent["password"]))
    return Response(hashed, status_code=201)


@app.post("/register")
async def register(request: Request) -> Response:
    sent = json.loads(await request.body())
    drivers: Drivers = request.app.state.drivers
    id_, token = new_id(), uuid.uuid4()
    key = f"cache:ceiling:{{user:{id_}}}"
    keys, lease = [key, f"{key}:lease"], token.hex
    await drivers.lease(keys=keys, args=[3000, lease])
    user = {"id": id_, "password_hash": sent["password"], "language_preference": "en", "cefr_level": "A1", **sent}
    mine = {"user_id": str(id_)}
    welcome = {"_id": str(new_id()), "title": WELCOME_TITLE, "created_at": now(), "updated_at": now(), **mine}
    activity = {"_id": str(new_id()), "action": "registered", "at": now(), **mine}
    aggregate = f"user:{id_}"
    owed = {
        "aggregates": [aggregate] * 2,
        "stores": ["mongodb"] * 2,
        "names": ["CreateConversation", "RecordActivity"],
        "payloads": [json.dumps(welcome, default=str), json.dumps(activity, default=str)],
        "delays": [0, 0],
        "traceparent": None,
        "token": token,
        "lease": LEASE_TIME,
    }
    async with drivers.postgres.acquire() as connection, connection.transaction():
        added: Any = await connection.fetchrow(ADD_USER.text, *ADD_USER.arguments(user))
        recorded = await connection.fetch(ADD_OWED.text, *ADD_OWED.arguments(owed))
    await drivers.mongodb.conversations.insert_one(welcome)
    await drivers.mongodb.activity.insert_one(activity)
    drivers.unsettled.put_nowait((aggregate, token, [row["id"] for row in recorded]))
    entry = b"v1:" + json.dumps(dict(added), default=str).encode()
    await drivers.fill(keys=keys, args=[lease, 1, entry, 300_000])
    answer = {"user_id": str(id_), "welcome_conversation_id": welcome["_id"]}
    return Response(json.dumps(answer), status_code=201, media_type="application/json")


@app.post("/users/{user_id}/conversations/{id}/messages")
async def post_message(request: Request) -> Response:
    """One insert: nobody asks whose the conversation is, and this process alone counts."""
    sent, drivers, id_ = json.loads(await request.body()), request.app.state.drivers, request.path_params["id"]
    message_id = str(new_id())
    drivers.numbers[id_] += 1
    document = {"_id": f"raw:{id_}/{message_id}", "conversation_id": f"raw:{id_}", "seq": drivers.numbers[id_]}
    document |= {"timestamp": now(), "id": message_id, "role": "user", "metadata": {}, **sent}
    await drivers.mongodb.messages.insert_one(document)
    return _answer({name: document[name] for name in MESSAGE}, 201)


@app.get("/users/{user_id}/conversations/{id}")
async def read_conversation(request: Request) -> Response:
    """One query: the messages alone."""
    this = {"conversation_id": request.path_params["id"]}
    found = await request.app.state.drivers.mongodb.messages.find(this).sort("seq", -1).limit(20).to_list(None)
    return _answer([{name: document[name] for name in MESSAGE} for document in found])


@app.get("/users/{user_id}/conversations")
async def list_conversations(request: Request) -> Response:
    """One query: without their last messages."""
    mine = {"user_id": request.path_params["user_id"]}
    found = await request.app.state.drivers.mongodb.conversations.find(mine).sort("_id", -1).limit(20).to_list(None)
    return _answer(found)


def _answer(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value, default=str), status, media_type="application/json")
