"""Many statements of several engines through few connections of PgBouncer: none fails, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import bindparam, column, select, table, text

from tristore.settings import TristoreSettings
from tristore.stores.postgres import HotQuery, Postgres, connect, open_postgres
from tristore.testing import pooler
from tristore.testing.stores import Servers, own_databases

WRITERS, EACH = 60, 56


@pytest.fixture
async def settings(servers: Servers) -> AsyncIterator[TristoreSettings]:
    patient = {"postgres_request_deadline": 30, "postgres_connect_timeout": 10}
    async with own_databases(servers, postgres_pool_size=40, **patient) as settings:
        yield settings


async def direct(settings: TristoreSettings) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(settings.migrations_dsn().replace("+asyncpg", ""))


def test_it_is_the_pooler_that_is_tested(settings: TristoreSettings) -> None:
    assert pooler.MODE in {"transaction", "session"}
    assert (settings.postgres_pooler, settings.dsn("postgres_dsn") == settings.migrations_dsn()) == (pooler.MODE, False)


async def test_ten_thousand_statements_from_two_processes_worth_of_engines(settings: TristoreSettings) -> None:
    things = table("things", column("id"), column("n"))
    hot = HotQuery(select(things.c.n).where(things.c.id == bindparam("wanted")))
    connection = await direct(settings)
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL)")
    await connection.execute(f"INSERT INTO things SELECT i, 0 FROM generate_series(0, {WRITERS - 1}) AS i")

    async def write(postgres: Postgres, number: int) -> None:
        for n in range(1, EACH + 1):
            async with connect(postgres.engine) as transaction:
                await transaction.execute(text("UPDATE things SET n = n + 1 WHERE id = :id"), {"id": number})
                await transaction.commit()
            row = await hot.row(postgres, wanted=number)
            assert row
            assert row["n"] == n
            async with connect(postgres.reads) as reading:
                assert await reading.scalar(select(things.c.n).where(things.c.id == number)) == n

    try:
        async with open_postgres(settings) as one, open_postgres(settings) as other:
            await asyncio.gather(*(write((one, other)[number % 2], number) for number in range(WRITERS)))
        assert await connection.fetchval("SELECT sum(n) FROM things") == WRITERS * EACH
    finally:
        await connection.execute("DROP TABLE things")
        await connection.close()


async def test_nothing_that_was_prepared_is_left_behind(settings: TristoreSettings) -> None:
    async with open_postgres(settings) as postgres:
        for number in range(50):
            async with connect(postgres.engine) as transaction:
                await transaction.execute(text(f"SELECT {number}"))
                await transaction.commit()
    # Over a connection without a cache of its own, which gets one of the pooler's: those of this database and role.
    looker = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""), statement_cache_size=0)
    try:
        left = await looker.fetch("SELECT name, statement FROM pg_prepared_statements WHERE name <> ''")
        assert [row["statement"] for row in left if "pg_prepared_statements" not in row["statement"]] == []
    finally:
        await looker.close()


async def test_no_limit_of_one_client_reaches_another(settings: TristoreSettings) -> None:
    async with open_postgres(settings) as postgres, connect(postgres.reads) as connection:
        assert await connection.scalar(text("SELECT current_setting('statement_timeout')")) == "0"
