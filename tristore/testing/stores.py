"""The one table of stores, fake and real, that contract tests, concurrency tests and benchmarks draw from."""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg
import httpx
from alembic import command
from anyio import to_thread
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi import FastAPI
from mongomock import aggregate
from mongomock_motor import AsyncMongoMockClient
from pydantic import SecretStr
from pymongo import MongoClient

from tristore.cache.entries import hash_tag
from tristore.embedded.passwords import APP_ROLE
from tristore.embedded.servers import Server, Store
from tristore.migrations.history import OWN
from tristore.settings import MIGRATIONS, TristoreSettings
from tristore.stores.mongodb import Document, MongoStore, open_mongodb
from tristore.stores.redis import RedisStore, ServerIdentity, open_redis
from tristore.testing.log_of_run import HOOKS
from tristore.testing.pooler import settings_through

Servers = dict[Store, Server]
S = TypeVar("S", bound=TristoreSettings)


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


def _lookup_with_pipeline(documents: list[Document], database: Any, options: Document) -> list[Document]:
    """A `$lookup` without conditions on the outer document, which mongomock does not know."""
    if "pipeline" not in options:
        return cast(list[Document], _LOOKUP(documents, database, options))
    found = list(database[options["from"]].aggregate(options["pipeline"]))
    return [{**document, options["as"]: found} for document in documents]


_STAGES: Any = aggregate._PIPELINE_HANDLERS
_LOOKUP, _STAGES["$lookup"] = _STAGES["$lookup"], _lookup_with_pipeline


@asynccontextmanager
async def mongomock(settings: TristoreSettings) -> AsyncIterator[MongoStore]:
    client: Any = AsyncMongoMockClient(tz_aware=True)
    yield MongoStore(client.test, client, timeout=5, pool_size=1)


def real_mongodb(driver: str) -> Callable[[TristoreSettings], AbstractAsyncContextManager[MongoStore]]:
    @asynccontextmanager
    async def open_it(settings: TristoreSettings) -> AsyncIterator[MongoStore]:
        name = f"test_{secrets.token_hex(4)}"
        changes = {"mongodb_driver": driver, "mongodb_database": name, "mongodb_timeout": 5}
        async with open_mongodb(settings.model_copy(update=changes)) as store:
            yield store
            await store.probe.drop_database(name)

    return open_it


@asynccontextmanager
async def redis_cluster(settings: TristoreSettings) -> AsyncIterator[RedisStore]:
    """With settings that lead to one. Tests have several processes on one store, and each has its subscriptions."""
    async with real_redis(settings) as store:
        assert store.cluster
        for server in store.cluster.servers:
            server.subscriber.connection_pool.max_connections = 20
        yield store


def servers_of(redis: RedisStore) -> Sequence[RedisStore]:
    """One, or those of a cluster as last confirmed."""
    return redis.cluster.servers if redis.cluster else [redis]


def server_of(redis: RedisStore, key: str) -> RedisStore:
    """The one that has a key of the cache."""
    server = redis.cluster.owner_of(hash_tag(key)) if redis.cluster else redis
    assert server
    return server


def begin_another_history(redis: RedisStore, name: str = "another") -> None:
    """As a Redis does that was restarted."""
    for server in servers_of(redis):
        server.identity.history = name


REDIS = {"fakeredis": fake_redis, "redis": real_redis, "cluster": redis_cluster}
REAL_MONGODB = {"motor": real_mongodb("motor"), "pymongo": real_mongodb("pymongo")}
MONGODB = {"mongomock": mongomock, **REAL_MONGODB}
"""Each has an empty database."""


def allow_faults(server: Server) -> None:
    """Let the app's user of MongoDB make the server refuse, which tests do on the connections of the app."""
    with MongoClient[dict[str, Any]](server.administrator_dsn) as client:
        client.admin.command("grantRolesToUser", APP_ROLE, roles=["hostManager"])


def settings_on(servers: Servers, kind: type[S], **values: Any) -> S:
    """Settings of that class which lead to running servers. `.env` is not read."""
    dsns = {
        "postgres_dsn": servers["postgresql"].dsn,
        "redis_dsn": servers["redis"].dsn,
        "mongodb_dsn": servers["mongodb"].dsn,
        **settings_through(servers["postgresql"]),
    }
    return kind(_env_file=None, **{"environment": "test", **dsns, **values})


@asynccontextmanager
async def fresh_databases(settings: S, migrate: Callable[[S], Awaitable[None]]) -> AsyncIterator[S]:
    """The same settings, but for databases of the test's own, migrated. PostgreSQL's is dropped at the end.

    PostgreSQL copies it from a template, which takes a tenth of the time of all migrations. The first one to need the
    template makes it, and the others wait: they may be in other processes."""
    name = f"test_{secrets.token_hex(4)}"
    template = f"template_{migrate.__module__}_{migrate.__qualname__}".replace(".", "_")
    dsn = settings.migrations_dsn().replace("+asyncpg", "")
    administrator = await asyncpg.connect(dsn)
    try:
        await administrator.execute("SELECT pg_advisory_lock(hashtext($1))", template)
        if not await administrator.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", template):
            await administrator.execute(f'CREATE DATABASE "{name}"')
            await migrate(_with_databases(settings, name))
            await administrator.execute(f'ALTER DATABASE "{name}" RENAME TO "{template}"')
        await administrator.execute("SELECT pg_advisory_unlock_all()")
        await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await administrator.close()
    own = _with_databases(settings, name)
    await migrate(own)  # MongoDB
    yield own
    administrator = await asyncpg.connect(dsn)  # anew: the server may have been killed and started meanwhile
    try:
        # FORCE would refuse to end an autovacuum worker, which belongs to no role. A plain DROP ends it.
        await administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = current_user", name
        )
        await administrator.execute(f'DROP DATABASE "{name}"')
    finally:
        await administrator.close()


def own_databases(servers: Servers, **values: object) -> AbstractAsyncContextManager[TristoreSettings]:
    """Settings that lead to databases of the test's own, with the machinery's tables only."""
    return fresh_databases(settings_on(servers, TristoreSettings, **values), _migrate_own)


async def _migrate_own(settings: TristoreSettings) -> None:
    config = OWN.config(settings.migrations_dsn())
    await to_thread.run_sync(lambda: command.upgrade(config, "head"))


def _with_databases(settings: S, name: str) -> S:
    own = {
        field: SecretStr(urlsplit(dsn.get_secret_value())._replace(path=f"/{name}").geturl())
        for field in ("postgres_dsn", MIGRATIONS)
        if (dsn := getattr(settings, field))
    }
    return settings.model_copy(update={**own, "mongodb_database": name})


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that runs in this process."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", event_hooks=HOOKS) as client,
    ):
        yield client


def environment(settings: TristoreSettings, **more: str) -> dict[str, str]:
    """For an app process: our own environment, and each setting that was set."""
    mine = {name.upper(): _plain(getattr(settings, name)) for name in settings.model_fields_set}
    # Without .pyc files each process would compile everything anew, and take twice as long to start.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **mine, "LOG_LEVEL": "DEBUG", **more}


def _plain(value: object) -> str:
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)
