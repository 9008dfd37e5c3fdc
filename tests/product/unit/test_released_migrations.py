"""Databases that a released version has migrated: each comes to the schema that a new database gets."""

import re
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from anyio import to_thread

from config import Settings
from migrations import REVISIONS
from tests.under_test import fresh_databases
from tristore.migrations import own
from tristore.migrations.lock import migration_engine
from tristore.testing.catalog import catalog
from tristore.testing.stores import Servers

FIRST, *STEPS = re.split(
    r"-- Running upgrade .*-> \d{4}\n", Path(__file__).with_name("released.sql").read_text().replace("BEGIN;", "")
)
RELEASED = [f"{number:04}" for number in range(1, len(STEPS) + 1)]


async def emptied(settings: Settings) -> None:
    for sql in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
        await run_script(settings, sql)


async def at_release(settings: Settings, revision: str) -> None:
    """Leaves what a release with this revision has made, rows included."""
    await emptied(settings)
    await run_script(settings, "\n".join([FIRST, *STEPS[: int(revision)]]).replace("COMMIT;", ""))
    if revision >= "0002":
        queued = "('sample:1', 'mongodb', 1, now())"
        await run_script(settings, f"INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES {queued}")
        effect = "('sample:1', 'mongodb', 'Noted', '{}')"
        await run_script(settings, f"INSERT INTO outbox (aggregate, store, name, payload) VALUES {effect}")


async def run_script(settings: Settings, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    try:
        await connection.execute(sql)
        return await connection.fetch("SELECT * FROM outbox") if "outbox" in sql else []
    finally:
        await connection.close()


@pytest.mark.parametrize("revision", RELEASED)
async def test_a_released_database_comes_to_the_schema_of_a_new_one(servers: Servers, revision: str) -> None:
    async with fresh_databases(servers) as settings:
        dsn = settings.dsn("postgres_dsn")
        new = await catalog(dsn)
        await at_release(settings, revision)
        await to_thread.run_sync(command.upgrade, REVISIONS.config(dsn), "head")
        await to_thread.run_sync(command.check, REVISIONS.config(dsn))
        assert await catalog(dsn) == new
        if revision >= "0002":
            assert [row["name"] for row in await run_script(settings, "SELECT FROM outbox")] == ["Noted"]


async def test_adoption_changes_nothing_that_the_last_release_before_it_works_with(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        dsn = settings.dsn("postgres_dsn")
        await at_release(settings, RELEASED[-1])
        released = await catalog(dsn)
        async with migration_engine(dsn).connect() as connection:
            assert await connection.run_sync(own.adopt) == {"0003"}
        assert {row for row in await catalog(dsn) if row[0] != "tristore_version"} == released
