"""What makes a store refuse does so, and is taken back, also when the run is interrupted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.chaos.strikes import mongodb_locked, postgresql_read_only, redis_demoted, redis_without_replicas
from tests.under_test import Lab

Client = Any


@pytest.fixture
async def postgresql(lab: Lab) -> AsyncIterator[Client]:
    connection = await asyncpg.connect(lab.settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def redis(lab: Lab) -> AsyncIterator[Client]:
    async with Redis.from_url(lab.settings.dsn("redis_dsn")) as client:
        yield client


@pytest.fixture
async def mongodb(lab: Lab) -> AsyncIterator[Client]:
    async with AsyncMongoClient[dict[str, Any]](lab.settings.dsn("mongodb_dsn"), timeoutMS=700) as client:
        yield client


async def write_to_postgresql(connection: Client) -> None:
    await connection.execute("CREATE TABLE IF NOT EXISTS strikes ()")


async def write_to_redis(client: Client) -> None:
    await client.set("strike", 1)


async def write_to_mongodb(client: Client) -> None:
    await client.strikes.strikes.update_one({"_id": 1}, {"$inc": {"n": 1}}, upsert=True)


async def read_postgresql(connection: Client) -> object:
    return await connection.fetchval("SELECT 1")


async def read_redis(client: Client) -> object:
    return await client.ping()


async def read_mongodb(client: Client) -> object:
    return (await client.admin.command("hello"))["isWritablePrimary"]


@dataclass(frozen=True)
class Case:
    store: str
    strike: Callable[[Lab], AbstractAsyncContextManager[None]]
    read: Callable[[Client], Awaitable[object]]
    write: Callable[[Client], Awaitable[None]]
    error: type[Exception]


CASES = {
    "read-only": Case("postgresql", postgresql_read_only, read_postgresql, write_to_postgresql, asyncpg.PostgresError),
    "no replicas": Case("redis", redis_without_replicas, read_redis, write_to_redis, ResponseError),
    "demoted": Case("redis", redis_demoted, read_redis, write_to_redis, ResponseError),
    "locked": Case("mongodb", mongodb_locked, read_mongodb, write_to_mongodb, PyMongoError),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture
def client(case: Case, request: pytest.FixtureRequest) -> Client:
    return request.getfixturevalue(case.store)


async def test_a_store_that_refuses_writes_answers_on_the_same_connection_and_takes_them_again(
    case: Case, client: Client, lab: Lab
) -> None:
    await case.write(client)
    async with case.strike(lab):
        assert await case.read(client)
        with pytest.raises(case.error):
            await case.write(client)
    await case.write(client)


async def test_a_strike_that_is_interrupted_is_taken_back(case: Case, client: Client, lab: Lab) -> None:
    in_force = asyncio.Event()

    async def suffer() -> None:
        async with case.strike(lab):
            in_force.set()
            await asyncio.Event().wait()

    suffering = asyncio.create_task(suffer())
    await in_force.wait()
    suffering.cancel()
    await asyncio.gather(suffering, return_exceptions=True)
    await case.write(client)
