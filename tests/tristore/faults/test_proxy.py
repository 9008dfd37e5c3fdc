"""The proxy's faults do what they are called after."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from tristore.errors import StoreUnavailable
from tristore.stores.postgres import Postgres, connect, open_postgres
from tristore.testing.lab import Lab, until
from tristore.testing.proxy import DECISIVE, Proxy, proxy_to

COMMIT = DECISIVE["postgresql"]


@asynccontextmanager
async def behind_a_proxy(lab: Lab) -> AsyncIterator[tuple[Proxy, Postgres]]:
    port = lab.servers["postgresql"].port
    async with proxy_to(port) as proxy:
        dsn = lab.settings.dsn("postgres_dsn").replace(f":{port}", f":{proxy.port}")
        values = lab.settings.model_dump() | {"postgres_dsn": dsn, "postgres_statement_timeout": 1}
        async with open_postgres(type(lab.settings)(_env_file=None, **values)) as postgres:
            yield proxy, postgres


async def write(postgres: Postgres, name: str) -> None:
    async with connect(postgres.engine) as connection:
        await connection.execute(text(f"CREATE TABLE {name} ()"))
        await connection.commit()


async def exists(lab: Lab, name: str) -> bool:
    async with open_postgres(lab.settings) as postgres, connect(postgres.reads) as connection:
        found = await connection.execute(text(f"SELECT to_regclass('{name}') IS NOT NULL"))
        return bool(found.scalar_one())


async def test_what_is_late_is_the_commit_and_not_the_beginning_of_a_transaction(lab: Lab) -> None:
    async with behind_a_proxy(lab) as (proxy, postgres):
        async with connect(postgres.reads) as connection:  # after which SQLAlchemy begins with READ COMMITTED
            await connection.execute(text("SELECT 1"))
        proxy.hold(COMMIT)
        async with connect(postgres.engine) as connection:
            await connection.execute(text("SELECT 1"))
        assert proxy.held == 0
        with pytest.raises(StoreUnavailable):
            await write(postgres, "late")
        assert proxy.held == 1
        assert not await exists(lab, "late")
        proxy.release()
        await until(lambda: exists(lab, "late"), 5)


async def test_a_commit_whose_answer_is_lost_has_happened(lab: Lab) -> None:
    async with behind_a_proxy(lab) as (proxy, postgres):
        await write(postgres, "answered")
        proxy.lose_answer_to = COMMIT
        with pytest.raises(StoreUnavailable):
            await write(postgres, "unanswered")
        assert proxy.lost == 1
        assert await exists(lab, "unanswered")
        proxy.lose_answer_to = b""
        await write(postgres, "answered_again")


async def test_each_connection_takes_its_own_share_of_the_latency(lab: Lab) -> None:
    shares = iter((0.0, 1.0))
    password = urlsplit(lab.servers["redis"].dsn).password
    async with (
        proxy_to(lab.servers["redis"].port, lambda: next(shares)) as proxy,
        Redis(port=proxy.port, password=password) as near,
        Redis(port=proxy.port, password=password) as far,
    ):
        for client in (near, far):
            await client.ping()
        proxy.latency = 0.5
        there_and_back = asyncio.ensure_future(far.ping())
        await near.ping()
        assert not there_and_back.done()
        started = time.monotonic()
        await there_and_back
        assert time.monotonic() - started > proxy.latency
