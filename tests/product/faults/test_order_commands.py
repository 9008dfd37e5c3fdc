"""The operator's commands on an order that does not go on."""

from collections.abc import AsyncIterator

import pytest

from models.course import EXAMPLE, CourseBatch
from models.order import Order, OrderIn
from models.user import Registration
from tests.product.commands import manage, outbox
from tests.product.people import account
from tests.under_test import Lab, stores_beside
from tristore.stores.stores import Stores
from tristore.testing.outbox import park, query
from wiring import Services


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


@pytest.fixture
async def order(apart: Lab, stores: Stores) -> AsyncIterator[Order]:
    """Pending, because its seats are not counted yet; no relay runs that could go on with it."""
    services = Services(apart.settings, stores)
    user_id = (await services.users.register_user(Registration.model_validate(account()))).user_id
    new = CourseBatch.model_validate({"courses": [EXAMPLE]})
    [course] = (await services.courses.create(user_id, new)).items
    await stores.mongodb.database.seats.delete_one({"_id": str(course.id)})
    yield await services.orders.place(user_id, OrderIn(course_id=course.id), None)
    await services.close()


async def test_a_saga_is_listed_retried_and_compensated(apart: Lab, stores: Stores, order: Order) -> None:
    async def saga(*arguments: str) -> tuple[int, str]:
        return await manage(apart, "saga", *arguments)

    await park(stores, f"saga:{order.id}", "X")
    code, listed = await saga("list")
    assert code == 0
    assert f"{order.id}  order  running, dead  take seats  since" in listed
    assert "12 attempts, last: X\n1 sagas" in listed
    assert await saga("retry", str(order.id)) == (0, "Due now.\n")
    assert "running  take seats" in (await saga("list"))[1]
    await park(stores, f"saga:{order.id}", "X")
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
    await park(stores, f"saga:{order.id}:undo", "X")
    assert await saga("retry", str(order.id)) == (0, "Due now.\n")
    assert (await query(stores, "SELECT dead FROM outbox_streams WHERE aggregate LIKE '%undo'"))[0].dead is False
