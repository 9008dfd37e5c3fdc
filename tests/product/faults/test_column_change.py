"""docs/migrations.md, done as it stands on a table in use: no request fails, no row is lost."""

import asyncio
import random
import re
import uuid
from collections.abc import AsyncIterator, Callable
from types import ModuleType

import httpx
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

from tests.product.commands import manage
from tests.product.documents import blocks
from tests.product.people import register
from tests.product.sessions import PATIENT
from tests.under_test import Lab, stores_beside
from tristore.migrations.patience import migrate_under_lock
from tristore.stores.stores import Stores
from tristore.testing.lab import LONG, PROJECT
from tristore.testing.outbox import query

pytestmark = pytest.mark.timeout(900 if LONG else 300)
ROWS = 1_000_000 if LONG else 20_000
LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
MANY_USERS = """
INSERT INTO users (id, username, email, password_hash, cefr_level)
SELECT gen_random_uuid(), 'u' || n, 'u' || n || '@example.org', 'h', (ARRAY['A1', 'B2', 'C1'])[n % 3 + 1]
FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n
"""
PRINTED = r"(\d+) rows changed. Of (\d+) rows 0 differ.\nChecksums: (-?\d+) expected, (-?\d+) found.\n"
DIFFER = "SELECT count(*) FROM users WHERE level IS DISTINCT FROM cefr_level"


def revisions() -> dict[str, ModuleType]:
    """Those that the document shows, by number."""
    found = {}
    for source in blocks(PROJECT / "docs/migrations.md", "python"):
        module = ModuleType("shown")
        exec(source, vars(module))
        found[module.revision] = module
    return found


async def migrate(lab: Lab, step: Callable[[], None]) -> None:
    """As `manage.py migrate` runs a revision: in one transaction, waiting a short time for locks."""

    def run(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            step()

    await migrate_under_lock(lab.settings.migrations_dsn(), run)


async def many_users(stores: Stores, rows: int) -> None:
    """Some at a time: no statement of the service may take longer than 5 s."""
    for first in range(1, rows + 1, 20_000):
        await query(stores, MANY_USERS, first=first, last=min(rows, first + 19_999))


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


class Users:
    """Of the release that runs: they change their level through the API and read it. Of the next one: the rows are
    written as it would write them."""

    def __init__(self, client: httpx.AsyncClient, stores: Stores) -> None:
        self._client = client
        self._stores = stores
        self.done = {"of this release": 0, "of the next": 0}

    async def of_this_release(self) -> None:
        headers = await register(self._client)
        while True:
            level = random.choice(LEVELS)
            changed = await self._client.patch("/users/me", headers=headers, json={"level": level})
            assert (changed.status_code, changed.json()["level"]) == (200, level)
            read = await self._client.get("/users/me", headers=headers)
            assert (read.status_code, read.json()["level"]) == (200, level)
            self.done["of this release"] += 1

    async def of_the_next(self) -> None:
        name = f"next-{random.getrandbits(40)}"
        new = {"id": uuid.uuid4(), "name": name, "email": f"{name}@example.org"}
        insert = "INSERT INTO users (id, username, email, password_hash, level) VALUES (:id, :name, :email, 'h', 'C2')"
        await query(self._stores, insert, **new)
        while True:
            level = random.choice(LEVELS)
            await query(self._stores, "UPDATE users SET level = :level WHERE id = :id", level=level, id=new["id"])
            [[read]] = await query(self._stores, "SELECT level FROM users WHERE id = :id", id=new["id"])
            assert read == level
            self.done["of the next"] += 1

    async def until_more(self, who: str) -> None:
        seen = self.done[who]
        async with asyncio.timeout(60):
            while self.done[who] < seen + 5:
                await asyncio.sleep(0.02)


async def test_the_column_changes_while_the_service_works(apart: Lab, stores: Stores) -> None:
    shown = revisions()
    await many_users(stores, ROWS)
    async with apart.app(**PATIENT) as app, asyncio.TaskGroup() as group:
        users = Users(app.client, stores)
        working = [group.create_task(users.of_this_release()) for _ in range(3)]
        await users.until_more("of this release")

        await migrate(apart, shown["0011"].upgrade)
        await users.until_more("of this release")
        [[differ]] = await query(stores, DIFFER)
        assert ROWS <= differ <= ROWS + len(working)  # all but those whom somebody has written since

        code, printed = await manage(apart, "backfill", "users", "level", "cefr_level")
        assert code == 0, printed
        told = re.fullmatch(PRINTED, printed)
        assert told, printed
        assert ROWS <= int(told[1]) <= ROWS + len(working)
        assert int(told[2]) == ROWS + len(working)
        assert told[3] == told[4]
        assert (await query(stores, DIFFER))[0][0] == 0
        await users.until_more("of this release")

        await migrate(apart, shown["0012"].upgrade)
        working += [group.create_task(users.of_the_next()) for _ in range(2)]  # it rolls
        await users.until_more("of the next")
        await users.until_more("of this release")
        assert (await query(stores, DIFFER))[0][0] == 0

        for each in working[:3]:  # the last pod of this release is gone
            each.cancel()
        await users.until_more("of the next")
        await migrate(apart, shown["0013"].upgrade)
        await users.until_more("of the next")
        for each in working[3:]:
            each.cancel()
    columns = (
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'users' AND column_name LIKE '%level'"
    )
    assert [row[0] for row in await query(stores, columns)] == ["level"]
    [[kept]] = await query(
        stores, "SELECT count(*) FROM users WHERE level IN ('A1', 'B2', 'C1') AND username LIKE 'u%'"
    )
    assert kept == ROWS


async def test_each_step_can_be_taken_back(apart: Lab, stores: Stores) -> None:
    shown = revisions()
    await many_users(stores, 100)
    before = await query(stores, "SELECT id, cefr_level FROM users ORDER BY id")
    await migrate(apart, shown["0011"].upgrade)
    assert (await manage(apart, "backfill", "users", "level", "cefr_level", "--batch", "7"))[0] == 0
    for number in ("0012", "0013"):
        await migrate(apart, shown[number].upgrade)
    for number in ("0013", "0012", "0011"):
        await migrate(apart, shown[number].downgrade)
    assert await query(stores, "SELECT id, cefr_level FROM users ORDER BY id") == before


async def test_a_backfill_that_cannot_be_right_says_so(apart: Lab, stores: Stores) -> None:
    await many_users(stores, 100)
    # It is never what it should be.
    code, printed = await manage(apart, "backfill", "users", "language_preference", "left(md5(random()::text), 12)")
    assert code == 1
    assert "Of 100 rows 100 differ." in printed
    code, printed = await manage(apart, "backfill", "users", "level", "cefr_level")
    assert (code, "not migrated" in printed) == (1, True)
    assert (await manage(apart, "backfill", "users; DROP TABLE users", "level", "cefr_level"))[0] == 2


def test_the_document_shows_two_expands_and_a_contract() -> None:
    assert [module.phase for module in revisions().values()] == ["expand", "expand", "contract"]
