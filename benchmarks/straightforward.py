"""The same work wired as it comes to mind first: a session, a Redis client and a database handed to every request by
`yield` dependencies, ORM entities, `pool_pre_ping`, JSON decoded and encoded again on a hit, a pool that does not wait.

It does less than the app: nobody signs in, nothing is owed, fenced, counted or limited. CACHED=no leaves Redis out of
its reads, HASHED=no makes hashing trivial.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from motor.motor_asyncio import AsyncIOMotorClient
from passlib.context import CryptContext
from pymongo import AsyncMongoClient
from redis.asyncio import ConnectionPool, Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from config import get_settings
from models.conversation import NewMessage
from models.user import FullProfile, Profile, Registration, User
from tristore.passwords import CONTEXT

settings = get_settings()
engine = create_async_engine(settings.dsn("postgres_dsn"), pool_size=20, max_overflow=10, pool_pre_ping=True)
new_session = async_sessionmaker(engine, expire_on_commit=False)
pool: Any = ConnectionPool.from_url(settings.dsn("redis_dsn"), max_connections=20)
driver: Any = AsyncIOMotorClient if settings.mongodb_driver == "motor" else AsyncMongoClient
client: Any = driver(settings.dsn("mongodb_dsn"), w="majority", journal=True)
passwords = CONTEXT if os.environ.get("HASHED") != "no" else CryptContext(schemes=["plaintext"])
cached = os.environ.get("CACHED") != "no"
app = FastAPI()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


async def get_redis() -> AsyncIterator[Redis]:
    async with Redis(connection_pool=pool) as redis:
        yield redis


async def get_database() -> AsyncIterator[Any]:
    yield client[settings.mongodb_database]


Session = Annotated[AsyncSession, Depends(get_session)]
Cache = Annotated[Redis, Depends(get_redis)]
Database = Annotated[Any, Depends(get_database)]


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/health")
async def health(session: Session, redis: Cache, database: Database) -> dict[str, str]:
    await session.execute(text("SELECT 1"))
    await redis.ping()
    await database.command("ping")
    return {"postgresql": "connected", "redis": "connected", "mongodb": "connected"}


@app.get("/users/{user_id}")
async def read_user(user_id: uuid.UUID, session: Session, redis: Cache, database: Database) -> FullProfile:
    if cached and (found := await redis.get(f"straightforward:{user_id}")):
        return FullProfile(**json.loads(found))
    user, profile = await session.get(User, user_id), await session.get(Profile, user_id)
    if user is None or profile is None:
        raise HTTPException(404)
    full = _full(user, profile)
    if cached:
        await redis.set(f"straightforward:{user_id}", full.model_dump_json(), ex=300)
    return full


@app.post("/users/register", status_code=201)
async def register(registration: Registration, session: Session, redis: Cache, database: Database) -> dict[str, str]:
    fields = registration.model_dump(exclude={"password"})
    hashed = passwords.hash(registration.password.get_secret_value())
    user = User(id=uuid.uuid4(), password_hash=hashed, **fields)
    session.add(user)
    await session.flush()
    profile = Profile(user_id=user.id, display_name=registration.username)
    session.add(profile)
    await session.commit()
    await session.refresh(user)
    await session.refresh(profile)
    conversation = {"_id": str(uuid.uuid4()), "user_id": str(user.id), "title": "Welcome", "messages": []}
    await database.chats.insert_one(conversation)
    await database.activity.insert_one({"_id": str(uuid.uuid4()), "user_id": str(user.id), "action": "registered"})
    await redis.set(f"straightforward:{user.id}", _full(user, profile).model_dump_json(), ex=300)
    return {"user_id": str(user.id), "welcome_conversation_id": str(conversation["_id"])}


@app.get("/users/{user_id}/conversations")
async def list_conversations(
    user_id: uuid.UUID, session: Session, redis: Cache, database: Database
) -> list[dict[str, Any]]:
    found = await database.chats.find({"user_id": str(user_id)}, {"messages": 0}).to_list(None)
    return sorted(found, key=lambda chat: str(chat["_id"]), reverse=True)[:20]


@app.get("/conversations/{conversation_id}")
async def read_conversation(
    conversation_id: uuid.UUID, session: Session, redis: Cache, database: Database
) -> dict[str, Any]:
    """With its last messages."""
    chat = await database.chats.find_one({"_id": str(conversation_id)})
    if chat is None:
        raise HTTPException(404)
    return {**chat, "messages": chat["messages"][-20:]}


@app.post("/conversations/{conversation_id}/messages", status_code=201)
async def post_message(
    conversation_id: uuid.UUID, new: NewMessage, session: Session, redis: Cache, database: Database
) -> dict[str, Any]:
    """The messages are an array in the conversation."""
    message = {**new.model_dump(), "timestamp": datetime.now(UTC)}
    change = {"$push": {"messages": message}, "$set": {"updated_at": message["timestamp"]}}
    changed = await database.chats.update_one({"_id": str(conversation_id)}, change)
    if not changed.matched_count:
        raise HTTPException(404)
    return message


def _full(user: User, profile: Profile) -> FullProfile:
    assert user.username
    assert user.email
    return FullProfile.model_validate(
        {
            **{name: getattr(user, name) for name in ("id", "username", "email", "role", "version")},
            **{"language": user.language_preference, "level": user.cefr_level},
            **{"created_at": user.created_at, "updated_at": user.updated_at},
            **{"display_name": profile.display_name, "bio": profile.bio},
        }
    )
