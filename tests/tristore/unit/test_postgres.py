"""What bypasses SQLAlchemy's executing keeps its pool's promises."""

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import bindparam, func, select, text

from tristore.errors import Reason, StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.postgres import HotQuery, connect, open_postgres, pool_use, start_budget
from tristore.stores.stores import Stores

SLEEP = HotQuery(select(func.pg_sleep(bindparam("seconds")), func.pg_backend_pid().label("server")))


async def servers_of_all_connections(stores: Stores) -> set[int]:
    _, size = pool_use(stores.postgres)
    async with asyncio.timeout(3):
        rows = await asyncio.gather(*(SLEEP.row(stores.postgres, seconds=0.2) for _ in range(size)))
    return {row["server"] for row in rows if row}


async def test_a_connection_whose_query_was_cut_off_is_not_used_again(stores: Stores) -> None:
    before = await servers_of_all_connections(stores)
    cut_off = [asyncio.create_task(SLEEP.row(stores.postgres, seconds=5.0)) for _ in before]
    await asyncio.sleep(0.3)
    for task in cut_off:
        task.cancel()
    await asyncio.gather(*cut_off, return_exceptions=True)
    assert pool_use(stores.postgres)[0] == 0
    after = await servers_of_all_connections(stores)
    assert len(after) == len(before)
    assert after.isdisjoint(before)


async def test_a_query_waits_no_longer_than_the_requests_budget(stores: Stores) -> None:
    start_budget(0.3)
    assert await SLEEP.row(stores.postgres, seconds=0.1)
    with pytest.raises(StoreUnavailable, match="postgresql"):
        await asyncio.wait_for(SLEEP.row(stores.postgres, seconds=0.25), 1)
    assert pool_use(stores.postgres)[0] == 0


async def test_a_server_that_lets_nobody_in_is_unavailable(settings: TristoreSettings) -> None:
    # So it answers for a moment after it was killed, too; SQLAlchemy does not wrap what its pool meets.
    elsewhere = settings.model_copy(update={"postgres_dsn": SecretStr(f"{settings.dsn('postgres_dsn')}_missing")})
    async with open_postgres(elsewhere) as postgres:
        with pytest.raises(StoreUnavailable, match="unreachable"):
            await SLEEP.row(postgres, seconds=0.0)


async def test_behind_a_pooler_nothing_is_prepared_whatever_the_dsn_says(settings: TristoreSettings) -> None:
    dsn = f"{settings.dsn('postgres_dsn')}?statement_cache_size=100&prepared_statement_cache_size=100"
    behind = settings.model_copy(update={"postgres_dsn": SecretStr(dsn), "postgres_pooler": "transaction"})
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
    async with open_postgres(settings) as postgres, connect(postgres.reads) as connection:
        assert await connection.scalar(prepared)
    async with open_postgres(behind) as postgres, connect(postgres.reads) as connection:
        assert await connection.scalar(prepared) == 0


@pytest.mark.parametrize(
    ("statements", "reason", "cause"),
    [
        (("SET TRANSACTION READ ONLY", "CREATE TABLE t ()"), "read only", "25006"),
        (("SELECT * FROM pg_authid",), "not permitted", "42501"),
        (("SET LOCAL statement_timeout = 10", "SELECT pg_sleep(5)"), "timeout", "57014"),
        (("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$",), "refuses writes", "53100"),
        (("SELECT * FROM not_there_yet",), "not migrated", "42P01"),
        (("SELECT pg_terminate_backend(pg_backend_pid())",), "unreachable", "08003"),
        (("CREATE TABLE t (a int)", "SELECT * FROM t", "ALTER TABLE t ADD b int", "SELECT * FROM t"), "busy", "0A000"),
    ],
)
async def test_what_the_server_refuses_is_known_by_its_code(
    stores: Stores, statements: tuple[str, ...], reason: Reason, cause: str
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        async with connect(stores.postgres.engine) as connection:
            for statement in statements:
                await connection.execute(text(statement))
    assert (caught.value.reason, caught.value.cause) == (reason, cause)
    async with asyncio.timeout(5):
        while stores.postgres.gate.is_closed:  # a read-only transaction looked like a read-only server
            await asyncio.sleep(0.02)
