"""The product's migrations on real databases."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from config import Settings
from database.mongodb import Document, MongoStore, open_mongodb
from database.stores import open_stores
from migrations import REVISIONS, SCRIPTS
from models.conversation import CONVERSATION_INDEXES
from tests.product.documents import blocks
from tests.under_test import fresh_databases, migrate
from tristore.migrations.failures import MigrationFailed
from tristore.migrations.history import OWN, History, is_current
from tristore.migrations.lock import MIGRATION_LOCK, TAKE, migration_engine
from tristore.migrations.phases import misdeclared, released_revisions, too_early
from tristore.migrations.squawk import complaints
from tristore.models import new_id
from tristore.stores.stores import Stores
from tristore.testing.lab import PROJECT
from tristore.testing.outbox import query
from tristore.testing.revisions import history_in, revision
from tristore.testing.stores import Servers, environment


async def test_up_down_and_up_again_leaves_nothing_to_generate(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        config = REVISIONS.config(settings.dsn("postgres_dsn"))
        for step in (
            lambda: command.downgrade(config, "base"),
            lambda: command.upgrade(config, "head"),
            lambda: command.check(config),
        ):
            await to_thread.run_sync(step)


def test_there_is_one_head() -> None:
    assert len(REVISIONS.scripts().get_heads()) == 1


@pytest.mark.parametrize("history", [REVISIONS, OWN], ids=["the product's", "the machinery's"])
def test_each_revision_says_whether_it_adds_or_takes_away(history: History) -> None:
    assert list(misdeclared(history)) == []


@pytest.mark.parametrize(
    ("history", "folder"),
    [(REVISIONS, "migrations/postgres/versions"), (OWN, "tristore/migrations/postgres/versions")],
    ids=["the product's", "the machinery's"],
)
def test_no_contract_comes_in_the_same_release_as_its_expand(history: History, folder: str) -> None:
    tag, released = released_revisions(PROJECT, folder)
    if not tag:
        pytest.skip("git knows no tag v...: nothing was released yet, or this is a part of the history")
    assert list(too_early(history, released)) == []


def test_the_change_that_the_document_shows_passes_the_linter(tmp_path: Path) -> None:
    document = PROJECT / "docs/migrations.md"
    names = ("0010_before.py", "0011_level_beside.py", "0012_level_is_there.py", "0013_level_alone.py")
    texts = (revision("0010", "pass"), *blocks(document, "python"))
    [excused] = blocks(document, "toml")
    assert list(complaints(history_in(tmp_path, dict(zip(names, texts, strict=True)), excused))) == []


async def test_downgrades_leave_no_table_behind(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        for history in (REVISIONS, OWN):  # the other way round than they were made
            config = history.config(settings.dsn("postgres_dsn"))
            await to_thread.run_sync(command.downgrade, config, "base")
            assert not await is_current(stores.postgres.engine, REVISIONS)
        async with stores.postgres.engine.connect() as connection:
            tables = await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
            assert set(tables) == {"alembic_version", "tristore_version"}


async def test_an_account_without_an_address_goes_through_a_downgrade(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        config, id_ = REVISIONS.config(settings.dsn("postgres_dsn")), new_id()
        add = "INSERT INTO users (id, username, password_hash) VALUES (:id, 'ana', 'h')"
        await query(stores, add, id=id_)
        await to_thread.run_sync(command.downgrade, config, "0009")
        [row] = await query(stores, "SELECT email FROM users")
        assert row.email == f"{id_}@unverified.invalid"
        await to_thread.run_sync(command.upgrade, config, "head")


@pytest.mark.parametrize(
    "row",
    [
        "NULL, 'e@example.com', 'h', NULL",
        "'ana', NULL, NULL, NULL",
        "NULL, 'e@example.com', NULL, now()",
        "'ana', NULL, 'h', now()",
    ],
)
async def test_an_account_has_name_and_password_until_it_is_erased(stores: Stores, row: str) -> None:
    add = f"INSERT INTO users (id, username, email, password_hash, erased_at) VALUES (gen_random_uuid(), {row})"
    with pytest.raises(IntegrityError, match="ck_users_erased"):
        await query(stores, add)


@pytest.mark.parametrize("history", [REVISIONS, OWN], ids=["the product's", "the machinery's"])
async def test_a_database_is_current_when_neither_is_behind(servers: Servers, history: History) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        engine = stores.postgres.engine
        for recorded, current in (("'0001'", False), ("'of the next release'", True), (None, False)):
            async with engine.begin() as connection:
                table = history.version_table
                change = f"UPDATE {table} SET version_num = {recorded}" if recorded else f"DELETE FROM {table}"
                await connection.execute(text(change))
            assert await is_current(engine, REVISIONS) is current


async def test_several_pods_may_migrate_at_once(servers: Servers) -> None:
    async with fresh_databases(servers) as settings:
        config = REVISIONS.config(settings.dsn("postgres_dsn"))
        await to_thread.run_sync(lambda: command.downgrade(config, "base"))
        async with open_stores(settings) as stores:
            await stores.mongodb.database[SCRIPTS.ledger].delete_many({})
            pods = [
                await asyncio.create_subprocess_exec(sys.executable, "manage.py", "migrate", env=environment(settings))
                for _ in range(3)
            ]
            assert [await pod.wait() for pod in pods] == [0, 0, 0]
            assert await is_current(stores.postgres.engine, REVISIONS)
            applied = await stores.mongodb.database[SCRIPTS.ledger].find().to_list(10)
            assert [script["_id"] for script in applied] == SCRIPTS.names()


async def test_the_indexes_declared_beside_the_models_are_there(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        await migrate(settings)  # once more: nothing happens
        indexes = await stores.mongodb.database.messages.index_information()
        assert indexes["number"]["unique"] is True
        conversations = await stores.mongodb.database.conversations.index_information()
        assert {index.document["name"] for index in CONVERSATION_INDEXES} < conversations.keys()
        activity = await stores.mongodb.database.activity.index_information()
        assert activity["expiry"]["expireAfterSeconds"] == 90 * 24 * 3600


async def test_what_was_said_before_a_conversation_could_be_read_counts_as_read(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        database = stores.mongodb.database
        before: list[Document] = [{"_id": "1"}, {"_id": "2", "last_seq": 7}, {"_id": "3", "last_seq": 7, "read_seq": 3}]
        await database.conversations.insert_many(before)
        await database[SCRIPTS.ledger].delete_one({"_id": "m0003_reading"})
        await database.conversations.drop_index("user_recent_first")
        await migrate(settings)
        found = await database.conversations.find().sort("_id", 1).to_list(None)
        assert [conversation["read_seq"] for conversation in found] == [0, 7, 3]
        assert "user_recent_first" in await database.conversations.index_information()


async def test_migrating_with_an_older_release_leaves_a_newer_schema_alone(servers: Servers) -> None:
    async with fresh_databases(servers) as settings, open_stores(settings) as stores:
        async with stores.postgres.engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = 'of the next release'"))
        pod = await asyncio.create_subprocess_exec(sys.executable, "manage.py", "migrate", env=environment(settings))
        assert await pod.wait() == 0
        async with stores.postgres.engine.connect() as connection:
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "of the next release"


@pytest.fixture
async def apart(servers: Servers) -> AsyncIterator[Settings]:
    async with fresh_databases(servers) as settings:
        yield settings


@pytest.fixture
async def unmigrated(apart: Settings) -> AsyncIterator[MongoStore]:
    async with open_mongodb(apart.model_copy(update={"mongodb_timeout": 30})) as mongodb:
        await mongodb.database[SCRIPTS.ledger].delete_many({})
        await mongodb.database.messages.drop_indexes()
        yield mongodb


async def test_duplicates_in_mongodb_are_one_line(unmigrated: MongoStore) -> None:
    messages = [{"conversation_id": "of-a-learner", "seq": 1} for _ in range(2)]
    await unmigrated.database.messages.insert_many(messages)
    with pytest.raises(MigrationFailed, match=r"MongoDB, m0001_initial \(11000.*the same values") as caught:
        await SCRIPTS.upgrade(unmigrated.database)
    assert "of-a-learner" not in str(caught.value)


@pytest.mark.parametrize(("options", "code"), [({"name": "number"}, 86), ({"name": "mine", "unique": True}, 85)])
async def test_an_index_with_other_options_is_one_line(unmigrated: MongoStore, options: Any, code: int) -> None:
    keys = [("conversation_id", 1), ("seq", 1)]
    await unmigrated.database.messages.create_index(keys, **options)
    with pytest.raises(MigrationFailed, match=rf"MongoDB, m0001_initial \({code}\).*Drop it, then migrate again"):
        await SCRIPTS.upgrade(unmigrated.database)


async def test_a_closed_port_of_mongodb_is_told_and_the_lock_given_back(apart: Settings) -> None:
    closed = environment(apart, MONGODB_DSN="mongodb://127.0.0.1:1/?replicaSet=rs0")
    pod = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "migrate", env=closed, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):  # an operation may take ten minutes
        _, said = await pod.communicate()
    assert said.decode().startswith("Not migrated: mongodb is not available (unreachable")
    assert said.decode().endswith("Start it, or check its DSN.\n")
    async with migration_engine(apart.dsn("postgres_dsn")).connect() as connection:
        assert await connection.scalar(TAKE, {"key": MIGRATION_LOCK})
