"""A column is filled in batches, beside others who write."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tristore.migrations.backfill import Backfill
from tristore.settings import TristoreSettings
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.stores import Servers, own_databases

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
FILLED = Backfill("things", "new", "old::text || ':new'")


@pytest.fixture
async def apart(servers: Servers) -> AsyncIterator[TristoreSettings]:
    async with own_databases(servers) as settings:
        yield settings


@pytest.fixture
async def stores(apart: TristoreSettings) -> AsyncIterator[Stores]:
    async with open_stores(apart) as stores:
        await query(stores, "CREATE TABLE things (id bigint PRIMARY KEY, old int, new text)")
        await query(stores, "INSERT INTO things (id, old) SELECT 3 * n, n FROM generate_series(1, 100) n")
        yield stores


async def test_each_row_is_looked_at_and_what_is_wrong_is_written(apart: TristoreSettings, stores: Stores) -> None:
    await query(stores, "UPDATE things SET new = old || chr(58) || 'new' WHERE id = 9")
    told: list[str] = []
    assert await FILLED.run(apart.migrations_dsn(), told.append, 7) == 99
    assert told[0] == "things: 7 rows looked at, 6 changed"
    assert told[-1] == "things: 100 rows looked at, 99 changed"
    assert len(told) == 15
    assert (await query(stores, "SELECT count(*) FROM things WHERE new = old || chr(58) || 'new'"))[0][0] == 100
    assert await FILLED.run(apart.migrations_dsn(), told.append, 7) == 0


@pytest.mark.parametrize("limit", [1, 50, 100, 101])
async def test_any_size_of_batch_reaches_the_last_row(apart: TristoreSettings, stores: Stores, limit: int) -> None:
    assert await FILLED.run(apart.migrations_dsn(), lambda line: None, limit) == 100


async def test_counts_and_checksums_tell_what_differs(apart: TristoreSettings, stores: Stores) -> None:
    before = await FILLED.compare(apart.migrations_dsn())
    assert (before.number, before.differ, before.agree) == (100, 100, False)
    await FILLED.run(apart.migrations_dsn(), lambda line: None)
    filled = await FILLED.compare(apart.migrations_dsn())
    assert (filled.number, filled.differ, filled.agree) == (100, 0, True)
    assert filled.expected == filled.found == before.expected
    await query(stores, "UPDATE things SET new = 'x' WHERE id = 30")
    one = await FILLED.compare(apart.migrations_dsn())
    assert (one.differ, one.expected, one.agree) == (1, filled.expected, False)
    assert one.found != filled.found


async def test_a_row_that_somebody_holds_is_waited_for(apart: TristoreSettings, stores: Stores) -> None:
    async def somebody_waits() -> bool:
        return bool((await query(stores, WAITING))[0][0])

    async with stores.postgres.engine.begin() as holder:
        await holder.execute(text("UPDATE things SET old = 1000 WHERE id = 60"))
        running = asyncio.create_task(FILLED.run(apart.migrations_dsn(), lambda line: None, 10))
        await until(somebody_waits, 20)
    assert await running == 100
    assert [tuple(row) for row in await query(stores, "SELECT old, new FROM things WHERE id = 60")] == [
        (1000, "1000:new")
    ]


async def test_a_column_that_is_not_there_is_an_error(apart: TristoreSettings, stores: Stores) -> None:
    with pytest.raises(DBAPIError):
        await Backfill("things", "newer", "old").run(apart.migrations_dsn(), lambda line: None)


@pytest.mark.parametrize("names", [("a b", "c", "d"), ("a", "c;", "d"), ("a", 'c"', "d")])
def test_names_are_names(names: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="is no name"):
        Backfill(*names)
