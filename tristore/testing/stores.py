"""The one table of stores, fake and real, that contract tests, concurrency tests and benchmarks draw from."""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import httpx
from alembic import command
from anyio import to_thread
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi import FastAPI
from mongomock_motor import AsyncMongoMockClient

from config import Settings
from migrations import REVISIONS, SCRIPTS
from tristore.embedded.servers import Server, Store
from tristore.settings import TristoreSettings
from tristore.stores.mongodb import MongoStore, open_mongodb
from tristore.stores.redis import RedisStore, ServerIdentity, open_redis
from tristore.testing.log_of_run import note_error

Servers = dict[Store, Server]
S = TypeVar("S", bound=TristoreSettings)
HOOKS: Any = {"response": [note_error]}
RATE_LIMITS = ("sign_in_address", "sign_in_account", "registration", "requests")


@asynccontextmanager
async def fake_redis(settings: TristoreSettings) -> AsyncIterator[RedisStore]:
    client = FakeAsyncRedis(server=FakeServer(), max_connections=1000)
    yield RedisStore(
        client, client, client, timeout=2, identity=ServerIdentity("fake"), raise_unknown=True
    )  # it knows no INFO
    await client.aclose()


@asynccontextmanager
async def real_redis(settings: TristoreSettings) -> AsyncIterator[RedisStore]:
    async with open_redis(settings) as store:
        await store.client.flushall()
        yield store


@asynccontextmanager
async def mongomock(settings: Settings) -> AsyncIterator[MongoStore]:
    client: Any = AsyncMongoMockClient(tz_aware=True)
    yield await _migrated(MongoStore(client.fake, client, timeout=5, pool_size=1, required_scripts=SCRIPTS.newest()))


def real_mongodb(driver: str) -> Callable[[Settings], AbstractAsyncContextManager[MongoStore]]:
    @asynccontextmanager
    async def open_it(settings: Settings) -> AsyncIterator[MongoStore]:
        name = f"test_{secrets.token_hex(4)}"
        changes = {"mongodb_driver": driver, "mongodb_database": name, "mongodb_timeout": 5}
        async with open_mongodb(settings.model_copy(update=changes), SCRIPTS.newest()) as store:
            yield await _migrated(store)
            await store.probe.drop_database(name)

    return open_it


async def _migrated(store: MongoStore) -> MongoStore:
    await SCRIPTS.upgrade(store.database)
    return store


REDIS = {"fakeredis": fake_redis, "redis": real_redis}
REAL_MONGODB = {"motor": real_mongodb("motor"), "pymongo": real_mongodb("pymongo")}
MONGODB = {"mongomock": mongomock, **REAL_MONGODB}


@asynccontextmanager
async def fresh_databases(servers: Servers, **overrides: Any) -> AsyncIterator[Settings]:
    """Settings that lead to databases of the test's own on running servers, migrated; dropped at the end."""
    name = f"test_{secrets.token_hex(4)}"
    base = servers["postgresql"].dsn.rpartition("/")[0]
    settings = settings_for(servers, postgres_dsn=f"{base}/{name}", mongodb_database=name, **overrides)
    await _administer(servers, f'CREATE DATABASE "{name}"')
    await migrate(settings)
    yield settings
    await _administer(servers, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that runs in this process."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", event_hooks=HOOKS) as client,
    ):
        yield client


def settings_on(servers: Servers, kind: type[S], **values: Any) -> S:
    """Settings of that class which lead to running servers. `.env` is not read."""
    dsns = {
        "postgres_dsn": servers["postgresql"].dsn,
        "redis_dsn": servers["redis"].dsn,
        "mongodb_dsn": servers["mongodb"].dsn,
    }
    return kind(_env_file=None, **{"environment": "test", **dsns, **values})


def settings_for(servers: Servers, **overrides: Any) -> Settings:
    values: dict[str, Any] = {
        "environment": "test",
        "postgres_dsn": servers["postgresql"].dsn,
        "redis_dsn": servers["redis"].dsn,
        "mongodb_dsn": servers["mongodb"].dsn,
        **{f"rate_limit_{name}": "" for name in RATE_LIMITS},
    }
    return Settings(_env_file=None, **values | overrides)


async def migrate(settings: Settings) -> None:
    await to_thread.run_sync(lambda: command.upgrade(REVISIONS.config(settings.dsn("postgres_dsn")), "head"))
    async with open_mongodb(settings.model_copy(update={"mongodb_timeout": 30})) as store:
        await SCRIPTS.upgrade(store.database)


async def _administer(servers: Servers, statement: str) -> None:
    connection = await asyncpg.connect(servers["postgresql"].dsn.replace("+asyncpg", ""))
    await connection.execute(statement)
    await connection.close()


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """What an app process needs to run on these databases."""
    dsns = {
        "POSTGRES_DSN": settings.dsn("postgres_dsn"),
        "REDIS_DSN": settings.dsn("redis_dsn"),
        "MONGODB_DSN": settings.dsn("mongodb_dsn"),
    }
    mine = {"ENVIRONMENT": "test", "MONGODB_DATABASE": settings.mongodb_database, "LOG_LEVEL": "DEBUG"}
    mine |= {f"RATE_LIMIT_{name.upper()}": "" for name in RATE_LIMITS}
    # Compiling everything anew would double the start of each process.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **dsns, **mine, **more}
