"""The operator's commands on real databases."""

from collections.abc import AsyncIterator

import pytest

from tests.product.commands import manage, outbox
from tests.product.people import register, sign_in
from tests.under_test import Lab, stores_beside
from tristore.models import new_id
from tristore.stores.stores import Stores
from tristore.testing.lab import App
from tristore.testing.outbox import Noted, make_outbox, park, query, write


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


async def test_a_dead_effect_is_shown_retried_and_skipped(apart: Lab, stores: Stores) -> None:
    recorded = [Noted(on="a-dead-one", number=number) for number in (1, 2)]
    await write(make_outbox(stores, None), stores, recorded, deliver=False)
    await park(stores, "noted:a-dead-one")
    code, listed = await outbox(apart, "list", "--dead")
    assert code == 0
    assert "noted:a-dead-one  mongodb  dead  2 pending" in listed
    assert '"number": 1' in (await outbox(apart, "show", "noted:a-dead-one"))[1]
    assert (await outbox(apart, "skip", "noted:a-dead-one", "mongodb"))[1].startswith("Dropped effect")
    remaining = await query(stores, "SELECT payload->>'number' FROM outbox WHERE aggregate = 'noted:a-dead-one'")
    assert [row[0] for row in remaining] == ["2"]
    assert (await outbox(apart, "skip", "noted:a-dead-one", "mongodb"))[0] == 1  # it is not dead any more
    await park(stores, "noted:a-dead-one")
    assert await outbox(apart, "retry", "noted:a-dead-one", "mongodb") == (0, "Due now.\n")
    assert (await outbox(apart, "retry", "nobody", "redis"))[0] == 1
    assert (await outbox(apart, "retry", "nobody", "pigeons"))[0] == 2
    await park(stores, "noted:a-dead-one")
    assert await outbox(apart, "retry", "--all", "--store", "redis") == (0, "0 streams are due now.\n")
    assert await outbox(apart, "retry", "--all") == (0, "1 streams are due now.\n")
    assert (await outbox(apart, "retry", "noted:a-dead-one"))[0] == 2
    await query(stores, "UPDATE outbox_streams SET refusals = 5, waits_for = 'mongodb', last_error = 'timeout (50)'")
    listed = (await outbox(apart, "list"))[1]
    assert "noted:a-dead-one  mongodb  stuck  1 pending" in listed
    assert "5 refusals, last: timeout (50)" in listed
    await query(stores, "UPDATE outbox_streams SET refusals = 0, waits_for = NULL")
    await park(stores, "noted:a-dead-one")
    assert "1 effects are in 1 dead streams" in (await outbox(apart, "drain"))[1]


async def test_an_admin_is_created_and_sees_every_profile_in_full(lab: Lab, app: App) -> None:
    code, output = await manage(lab, "create-admin", "boss", "boss@example.com", "--password", "correct horse 9")
    assert (code, output.startswith("Created admin ")) == (0, True)
    headers = await sign_in(app.client, "boss", "correct horse 9")
    assert (await app.client.get("/users/me", headers=headers)).json()["role"] == "admin"
    learner = await register(app.client)
    assert "email" in (await app.client.get(f"/users/{learner['X-User-Id']}", headers=headers)).json()
    assert (await manage(lab, "create-admin", "boss", "other@example.com", "--password", "correct horse 9"))[0] == 1


@pytest.mark.parametrize("verb", ["show", "retry", "compensate"])
async def test_what_is_wrong_with_a_saga_is_said_in_one_line(apart: Lab, verb: str) -> None:
    assert await manage(apart, "saga", verb, str(new_id())) == (1, "Error: There is no such saga.\n")
