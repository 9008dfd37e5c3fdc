"""Alembic's and MongoDB's migrations on real databases."""

import asyncio
import sys

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from database import schema
from database.mongodb import LEDGER, script_names
from database.schema import alembic_config
from database.stores import open_stores
from tests.outbox import query
from tests.stores import Servers, environment, fresh_databases, migrate


def config_for(dsn: str) -> Config:
    config = alembic_config()
    config.attributes["dsn"] = dsn
    return config


async def test_up_down_and_up_again_leaves_nothing_to_generate(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        config = config_for(settings.dsn("postgres_dsn"))
        for step in (
            lambda: command.downgrade(config, "base"),
            lambda: command.upgrade(config, "head"),
            lambda: command.check(config),
        ):
            await to_thread.run_sync(step)


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


async def test_downgrade_leaves_no_table_behind(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        config = config_for(settings.dsn("postgres_dsn"))
        await to_thread.run_sync(lambda: command.downgrade(config, "base"))
        async with open_stores(settings) as stores, stores.postgres.engine.connect() as connection:
            tables = await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
            assert set(tables) == {"alembic_version"}
            assert not await schema.is_current(stores.postgres.engine)


async def test_wrong_counts_orphans_and_sagas_are_put_right_by_the_migration(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        config = config_for(settings.dsn("postgres_dsn"))
        await to_thread.run_sync(lambda: command.downgrade(config, "0006"))
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


async def test_several_pods_may_migrate_at_once(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        config = config_for(settings.dsn("postgres_dsn"))
        await to_thread.run_sync(lambda: command.downgrade(config, "base"))
        async with open_stores(settings) as stores:
            await stores.mongodb.database[LEDGER].delete_many({})
            pods = [
                await asyncio.create_subprocess_exec(sys.executable, "manage.py", "migrate", env=environment(settings))
                for _ in range(3)
            ]
            assert [await pod.wait() for pod in pods] == [0, 0, 0]
            assert await schema.is_current(stores.postgres.engine)
            applied = await stores.mongodb.database[LEDGER].find().to_list(10)
            assert [script["_id"] for script in applied] == script_names()


async def test_a_revision_that_this_release_does_not_know_is_a_newer_one(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        assert await schema.is_current(stores.postgres.engine)
        async with stores.postgres.engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = 'of the next release'"))
        assert await schema.is_current(stores.postgres.engine)


async def test_the_indexes_declared_beside_the_models_are_there(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        await migrate(settings)  # once more: nothing happens
        indexes = await stores.mongodb.database.messages.index_information()
        assert indexes["number"]["unique"] is True
        activity = await stores.mongodb.database.activity.index_information()
        assert activity["expiry"]["expireAfterSeconds"] == 90 * 24 * 3600


async def test_migrating_with_an_older_release_leaves_a_newer_schema_alone(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        async with stores.postgres.engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = 'of the next release'"))
        pod = await asyncio.create_subprocess_exec(sys.executable, "manage.py", "migrate", env=environment(settings))
        assert await pod.wait() == 0
        async with stores.postgres.engine.connect() as connection:
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "of the next release"
