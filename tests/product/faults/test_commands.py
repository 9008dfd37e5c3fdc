"""The operator's commands on real databases."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from models.course import EXAMPLE, CourseIn
from models.order import Order, OrderIn
from models.user import Registration
from tests.product.people import account, register, sign_in
from tests.under_test import Lab, fresh_databases
from tristore.models import new_id
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import PROJECT, App
from tristore.testing.outbox import Noted, make_outbox, query, write
from tristore.testing.stores import environment
from wiring import Services


@pytest.fixture
async def apart(lab: Lab) -> AsyncIterator[Lab]:
    """The lab's servers with databases that no app uses: its relay would lease what these tests look at."""
    async with fresh_databases(lab.servers) as settings:
        yield lab.on(settings)


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
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, (output or errors).decode()


async def test_a_dead_effect_is_shown_retried_and_skipped(apart: Lab, stores: Stores) -> None:
    recorded = [Noted(on="a-dead-one", number=number) for number in (1, 2)]
    await write(make_outbox(stores, None), stores, recorded, deliver=False)
    make_dead = (
        "UPDATE outbox_streams SET dead = true, attempts = 12, lease_until = NULL WHERE aggregate = 'noted:a-dead-one'"
    )
    await query(stores, make_dead)
    code, listed = await outbox(apart, "list", "--dead")
    assert code == 0
    assert "noted:a-dead-one  mongodb  dead  2 pending" in listed
    assert '"number": 1' in (await outbox(apart, "show", "noted:a-dead-one"))[1]
    assert (await outbox(apart, "skip", "noted:a-dead-one", "mongodb"))[1].startswith("Dropped effect")
    remaining = await query(stores, "SELECT payload->>'number' FROM outbox WHERE aggregate = 'noted:a-dead-one'")
    assert [row[0] for row in remaining] == ["2"]
    assert (await outbox(apart, "skip", "noted:a-dead-one", "mongodb"))[0] == 1  # it is not dead any more
    await query(stores, make_dead)
    assert await outbox(apart, "retry", "noted:a-dead-one", "mongodb") == (0, "Due now.\n")
    assert (await outbox(apart, "retry", "nobody", "redis"))[0] == 1
    assert (await outbox(apart, "retry", "nobody", "pigeons"))[0] == 2
    await query(stores, make_dead)
    assert await outbox(apart, "retry", "--all", "--store", "redis") == (0, "0 streams are due now.\n")
    assert await outbox(apart, "retry", "--all") == (0, "1 streams are due now.\n")
    assert (await outbox(apart, "retry", "noted:a-dead-one"))[0] == 2
    await query(stores, "UPDATE outbox_streams SET refusals = 5, waits_for = 'mongodb', last_error = 'timeout (50)'")
    listed = (await outbox(apart, "list"))[1]
    assert "noted:a-dead-one  mongodb  stuck  1 pending" in listed
    assert "5 refusals, last: timeout (50)" in listed
    await query(stores, "UPDATE outbox_streams SET refusals = 0, waits_for = NULL")
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


@pytest.fixture
async def order(stores: Stores, apart: Lab) -> AsyncIterator[Order]:
    """Pending, because its seats are not counted yet; no relay runs that could go on with it."""
    services = Services(apart.settings, stores)
    user_id = (await services.users.register_user(Registration.model_validate(account()))).user_id
    [course] = await services.courses.create([CourseIn.model_validate(EXAMPLE)])
    await stores.mongodb.database.seats.delete_one({"_id": str(course.id)})
    yield await services.orders.place(user_id, OrderIn(course_id=course.id), None)
    await services.close()


async def test_a_saga_is_listed_retried_and_compensated(apart: Lab, stores: Stores, order: Order) -> None:
    async def saga(*arguments: str) -> tuple[int, str]:
        return await manage(apart, "saga", *arguments)

    dead = (
        "UPDATE outbox_streams SET dead = true, attempts = 12, last_error = 'X', lease_until = NULL WHERE aggregate = "
    )
    await query(stores, f"{dead} 'saga:{order.id}'")
    code, listed = await saga("list")
    assert code == 0
    assert f"{order.id}  order  running, dead  take seats  since" in listed
    assert "12 attempts, last: X\n1 sagas" in listed
    assert await saga("retry", str(order.id)) == (0, "Due now.\n")
    assert "running  take seats" in (await saga("list"))[1]
    await query(stores, f"{dead} 'saga:{order.id}'")
    assert (await outbox(apart, "skip", f"saga:{order.id}", "sagas"))[0] == 0
    assert await saga("retry", str(order.id)) == (0, "Due now.\n")
    [owed] = await query(stores, "SELECT name, store FROM outbox WHERE aggregate LIKE 'saga:%'")
    assert tuple(owed) == ("ContinueSaga", "sagas")
    code, said = await saga("compensate", str(order.id))
    assert (code, said.count("\n"), "undone in reverse order" in said) == (0, 1, True)
    assert (await saga("compensate", str(order.id)))[0] == 1  # it is being undone
    status = await query(stores, "SELECT status, reason FROM orders WHERE id = :id", id=order.id)
    assert tuple(status[0]) == ("cancelled", "by an operator")
    shown = (await saga("show", str(order.id)))[1]
    assert "compensating  take seats" in shown
    assert "because: by an operator" in shown
    await query(stores, f"{dead} 'saga:{order.id}:undo'")
    assert await saga("retry", str(order.id)) == (0, "Due now.\n")
    assert (await query(stores, "SELECT dead FROM outbox_streams WHERE aggregate LIKE '%undo'"))[0].dead is False


@pytest.mark.parametrize("verb", ["show", "retry", "compensate"])
async def test_what_is_wrong_with_a_saga_is_said_in_one_line(apart: Lab, verb: str) -> None:
    assert await manage(apart, "saga", verb, str(new_id())) == (1, "Error: There is no such saga.\n")
