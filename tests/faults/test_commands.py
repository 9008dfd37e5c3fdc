"""The operator's commands on real databases."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from database.stores import Stores, open_stores
from tests.api.test_users import register, sign_in
from tests.faults.lab import PROJECT, App, Lab
from tests.outbox import Noted, make_outbox, query, write
from tests.stores import environment, fresh_databases


@pytest.fixture
async def apart(lab: Lab) -> AsyncIterator[Lab]:
    """The lab's servers with databases that no app uses: its relay would lease what these tests look at."""
    async with fresh_databases(lab.servers) as settings:
        yield Lab(lab.embedded, lab.servers, settings)


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with open_stores(apart.settings) as stores:
        yield stores


async def outbox(lab: Lab, *arguments: str) -> tuple[int, str]:
    return await manage(lab, "outbox", *arguments)


async def manage(lab: Lab, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", *arguments),
        cwd=PROJECT,
        env=environment(lab.settings),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_dead_effect_is_shown_retried_and_skipped(apart: Lab, stores: Stores) -> None:
    recorded = [Noted(on="a-dead-one", number=number) for number in (1, 2)]
    await write(make_outbox(stores, None), stores, recorded, deliver=False)
    make_dead = (
        "UPDATE outbox_streams SET dead = true, attempts = 12, lease_until = NULL WHERE aggregate = 'a-dead-one'"
    )
    await query(stores, make_dead)
    code, listed = await outbox(apart, "list", "--dead")
    assert code == 0
    assert "a-dead-one  mongodb  dead  2 pending" in listed
    assert '"number": 1' in (await outbox(apart, "show", "a-dead-one"))[1]
    assert (await outbox(apart, "skip", "a-dead-one", "mongodb"))[1].startswith("Dropped effect")
    remaining = await query(stores, "SELECT payload->>'number' FROM outbox WHERE aggregate = 'a-dead-one'")
    assert [row[0] for row in remaining] == ["2"]
    assert (await outbox(apart, "skip", "a-dead-one", "mongodb"))[0] == 1  # it is not dead any more
    await query(stores, make_dead)
    assert await outbox(apart, "retry", "a-dead-one", "mongodb") == (0, "Due now.\n")
    assert (await outbox(apart, "retry", "nobody", "redis"))[0] == 1
    await query(stores, make_dead)
    assert "1 effects are in 1 dead streams" in (await outbox(apart, "drain"))[1]


async def test_an_admin_is_created_and_sees_every_profile_in_full(lab: Lab, app: App) -> None:
    code, output = await manage(lab, "create-admin", "boss", "boss@example.com", "--password", "correct horse 9")
    assert (code, output.startswith("Created admin ")) == (0, True)
    headers = await sign_in(app.client, "boss", "correct horse 9")
    assert (await app.client.get("/users/me", headers=headers)).json()["role"] == "admin"
    learner = await register(app.client)
    assert "email" in (await app.client.get(f"/users/{learner['X-User-Id']}", headers=headers)).json()
    assert (await manage(lab, "create-admin", "boss", "other@example.com", "--password", "correct horse 9"))[0] == 1
