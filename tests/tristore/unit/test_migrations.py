"""The machinery's migrations on real databases, and how all migrations are run."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from alembic import command
from anyio import to_thread
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from tristore.migrations import own
from tristore.migrations.failures import MigrationFailed
from tristore.migrations.history import OWN
from tristore.migrations.lock import MIGRATION_LOCK, migration_engine, migration_lock
from tristore.migrations.patience import migrate_under_lock
from tristore.settings import TristoreSettings
from tristore.stores.stores import open_stores
from tristore.testing.catalog import catalog
from tristore.testing.outbox import query
from tristore.testing.stores import Servers, own_databases


async def test_migrating_drops_an_invalid_index_and_looking_at_the_schema_does_not(servers: Servers) -> None:
    async with own_databases(servers) as settings:
        dsn = settings.dsn("postgres_dsn")
        await run_sql(settings, "CREATE INDEX left_behind ON outbox (created_at)")
        spoil = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'left_behind'::regclass"
        await run_sql(above(settings, servers), spoil)
        for step, is_there in (
            (lambda: command.current(OWN.config(dsn)), True),
            (lambda: command.upgrade(OWN.config(dsn), "head"), False),
        ):
            await to_thread.run_sync(step)
            async with migration_engine(dsn).connect() as connection:
                found = await connection.scalar(text("SELECT to_regclass('left_behind') IS NOT NULL"))
            assert found is is_there


async def test_wrong_counts_orphans_and_sagas_are_put_right_by_the_migration(servers: Servers) -> None:
    async with own_databases(servers) as settings, open_stores(settings) as stores:
        config = OWN.config(settings.dsn("postgres_dsn"))
        await to_thread.run_sync(lambda: command.downgrade(config, "0002"))
        streams = [("at-rest", -1), ("wrong", 5), ("saga:1", 1), ("saga:1:undo", 0)]
        effects = [("wrong", "Noted"), ("wrong", "Noted"), ("orphan", "Noted"), ("saga:1", "ContinueSaga")]
        for aggregate, pending in streams:
            insert = "INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES (:a, 'mongodb', :n, now())"
            await query(stores, insert, a=aggregate, n=pending)
        for aggregate, name in effects:
            insert = "INSERT INTO outbox (aggregate, store, name, payload) VALUES (:a, 'mongodb', :n, '{}')"
            await query(stores, insert, a=aggregate, n=name)
        await to_thread.run_sync(lambda: command.upgrade(config, "head"))
        counts = "SELECT aggregate, store, pending, due_at <= clock_timestamp() FROM outbox_streams ORDER BY aggregate"
        assert [tuple(row) for row in await query(stores, counts)] == [
            ("at-rest", "mongodb", 0, True),
            ("orphan", "mongodb", 1, True),
            ("saga:1", "sagas", 1, True),
            ("saga:1:undo", "sagas", 0, True),
            ("wrong", "mongodb", 2, True),
        ]
        moved = await query(stores, "SELECT aggregate FROM outbox WHERE store = 'sagas'")
        assert [row.aggregate for row in moved] == ["saga:1"]
        with pytest.raises(IntegrityError):
            await query(stores, "UPDATE outbox_streams SET pending = -1")


async def test_the_machinerys_migrations_make_what_its_models_say(apart: TristoreSettings) -> None:
    config = OWN.config(apart.dsn("postgres_dsn"))
    for step in (
        lambda: command.downgrade(config, "base"),
        lambda: command.upgrade(config, "head"),
        lambda: command.check(config),  # it sees nothing of the tables that are not the machinery's
    ):
        await to_thread.run_sync(step)


@pytest.mark.parametrize("revision", ["base", "0001", "0002", "0003"])
async def test_tables_of_an_earlier_release_are_adopted_at_the_revision_that_they_are_like(
    apart: TristoreSettings, revision: str
) -> None:
    dsn = apart.dsn("postgres_dsn")
    fresh = await catalog(dsn)
    await to_thread.run_sync(lambda: command.downgrade(OWN.config(dsn), revision))
    await run_sql(apart, "DROP TABLE tristore_version")
    async with migration_engine(dsn).connect() as connection:
        adopted = await connection.run_sync(own.adopt)
    assert adopted == ({revision} - {"base"})
    await migrate_under_lock(dsn, own.upgrade)
    assert await run_sql(apart, "SELECT version_num FROM tristore_version") == [("0004",)]
    assert await catalog(dsn) == fresh


async def test_tables_that_an_earlier_release_has_migrated_meanwhile_are_adopted_anew(apart: TristoreSettings) -> None:
    dsn = apart.dsn("postgres_dsn")
    fresh = await catalog(dsn)
    await run_sql(apart, "UPDATE tristore_version SET version_num = '0001'")
    await migrate_under_lock(dsn, own.upgrade)
    assert await run_sql(apart, "SELECT version_num FROM tristore_version") == [("0004",)]
    assert await catalog(dsn) == fresh


async def test_the_machinerys_tables_of_a_newer_release_are_left_alone(apart: TristoreSettings) -> None:
    newer = [("of the next release",)]
    await run_sql(apart, f"UPDATE tristore_version SET version_num = '{newer[0][0]}'")
    await migrate_under_lock(apart.dsn("postgres_dsn"), own.upgrade)
    assert await run_sql(apart, "SELECT version_num FROM tristore_version") == newer


@pytest.fixture
async def apart(servers: Servers) -> AsyncIterator[TristoreSettings]:
    async with own_databases(servers) as settings:
        yield settings


def above(settings: TristoreSettings, servers: Servers) -> TristoreSettings:
    """The same database, with all rights."""
    server, name = servers["postgresql"].administrator_dsn, settings.dsn("postgres_dsn").rpartition("/")[2]
    return settings.model_copy(update={"postgres_dsn": SecretStr(f"{server.rpartition('/')[0]}/{name}")})


async def run_sql(settings: TristoreSettings, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement."""
    async with migration_engine(settings.dsn("postgres_dsn")).connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            result = await connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def running(statement: str) -> Callable[[Connection], None]:
    """What a migration does in its `autocommit_block`."""

    def run(connection: Connection) -> None:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))

    return run


async def test_an_index_is_built_concurrently_while_another_pod_waits_for_the_lock(
    apart: TristoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn, build = apart.dsn("postgres_dsn"), running("CREATE INDEX CONCURRENTLY IF NOT EXISTS here ON outbox (name)")
    async with migration_lock(dsn):
        waiting = asyncio.create_task(migrate_under_lock(dsn, build))
        said = await until_said(capsys, "Waiting for another migration")
        assert "migration, connected since" in said
        async with asyncio.timeout(60), migration_engine(dsn).connect() as connection:
            await connection.run_sync(build)
    await waiting
    assert await run_sql(apart, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'here'::regclass") == [(True,)]


async def until_said(capsys: pytest.CaptureFixture[str], text: str) -> str:
    said = ""
    while text not in said:
        await asyncio.sleep(0.1)
        said += capsys.readouterr().err
    return said


async def test_time_outs_of_the_database_end_neither_the_lock_nor_a_migration(apart: TristoreSettings) -> None:
    dsn = apart.dsn("postgres_dsn")
    name = dsn.rpartition("/")[2]
    limits = await run_sql(
        apart, "SELECT name FROM pg_settings WHERE name ~ '^(statement|idle.*|transaction)_timeout$'"
    )
    await run_sql(apart, *(f"ALTER DATABASE \"{name}\" SET {limit} = '300ms'" for (limit,) in limits))
    async with migration_lock(dsn):
        await asyncio.sleep(0.9)
        [free] = (await run_sql(apart, f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})"))[0]
        assert free is False
    await migrate_under_lock(dsn, running("SELECT pg_sleep(0.9)"))


async def test_a_migration_gives_up_a_table_that_is_locked_and_comes_back(
    apart: TristoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = apart.dsn("postgres_dsn")
    async with migration_engine(dsn).connect() as reader:
        await reader.execute(text("SELECT FROM outbox"))
        migration = asyncio.create_task(migrate_under_lock(dsn, running("ALTER TABLE outbox ADD COLUMN here int")))
        await until_said(capsys, "Another transaction has locked what the migration needs")
    await migration
    assert await run_sql(apart, "SELECT here FROM outbox") == []


async def test_duplicates_are_named_by_their_index_and_an_invalid_one_is_built_anew(apart: TristoreSettings) -> None:
    dsn, build = apart.dsn("postgres_dsn"), running("CREATE UNIQUE INDEX CONCURRENTLY only_one ON doubles (email)")
    await run_sql(
        apart, "CREATE TABLE doubles (email text)", "INSERT INTO doubles VALUES ('a@b.example'), ('a@b.example')"
    )
    with pytest.raises(MigrationFailed, match=r"PostgreSQL \(23505: .*doubles, only_one\).*the same values") as caught:
        await migrate_under_lock(dsn, build)
    assert "a@b.example" not in str(caught.value)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'only_one'::regclass"
    assert await run_sql(apart, valid) == [(False,)]
    await run_sql(apart, "TRUNCATE doubles")
    await migrate_under_lock(dsn, build)
    assert await run_sql(apart, valid) == [(True,)]


async def test_an_index_that_somebody_is_building_is_left_alone(apart: TristoreSettings) -> None:
    dsn, state = apart.dsn("postgres_dsn"), "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_hand')"
    async with migration_engine(dsn).connect() as writer:
        await writer.execute(text("INSERT INTO tristore_version VALUES ('not yet')"))
        building = asyncio.create_task(
            run_sql(apart, "CREATE INDEX CONCURRENTLY by_hand ON tristore_version (version_num)")
        )
        while await run_sql(apart, state) != [(False,)]:  # it waits for the writer
            await asyncio.sleep(0.1)
        await migrate_under_lock(dsn, running("SELECT 1"))
        assert await run_sql(apart, state) == [(False,)]
    await building
    assert await run_sql(apart, state) == [(True,)]


async def test_a_missing_right_of_a_migration_is_one_line(apart: TristoreSettings, servers: Servers) -> None:
    administrator = above(apart, servers)
    dsn = apart.dsn("postgres_dsn")
    name = dsn.rpartition("/")[2]
    await run_sql(administrator, f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{name}'")
    scheme, _, address = dsn.partition("://")
    theirs = f"{scheme}://{name}:{name}@{address.partition('@')[2]}"
    with pytest.raises(MigrationFailed, match=r"PostgreSQL \(42501\).*must own the tables"):
        await migrate_under_lock(theirs, running("ALTER TABLE outbox ADD COLUMN here int"))
    await run_sql(administrator, f'DROP ROLE "{name}"')
