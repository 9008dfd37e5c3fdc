"""The three stores, opened together and closed in reverse."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tristore.settings import TristoreSettings
from tristore.stores.mongodb import MongoStore, open_mongodb
from tristore.stores.postgres import Postgres, open_postgres
from tristore.stores.redis import RedisStore, open_redis


@dataclass(frozen=True)
class Stores:
    postgres: Postgres
    redis: RedisStore
    mongodb: MongoStore


@asynccontextmanager
async def open_stores(
    settings: TristoreSettings, required_scripts: Mapping[str, str] | None = None
) -> AsyncIterator[Stores]:
    """Open all three without connecting: the service starts while stores are down. Raises MissingDSN.
    `required_scripts`: as in MongoStore."""
    async with AsyncExitStack() as exits:
        postgres = await exits.enter_async_context(open_postgres(settings))  # may lose nothing
        redis = await exits.enter_async_context(open_redis(settings))  # may lose everything
        mongodb = await exits.enter_async_context(open_mongodb(settings, required_scripts))  # may be late, not lossy
        yield Stores(postgres, redis, mongodb)
