"""An order that is cancelled again because the answer was lost, or twice at once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.product.orders import order
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tests.product.town import Thing, Town, town_in
from tests.under_test import Lab


@pytest.fixture(scope="module")
async def town(lab: Lab) -> AsyncIterator[Town]:
    async with town_in(lab) as town:
        yield town


async def bought(town: Town) -> tuple[dict[str, Any], Thing]:
    """A confirmed order, and how it is cancelled."""
    learner, admin = await register(town.there), await register_admin(town.there, town.stores)
    placed = (await order(town.there, learner, await new_course(town.there, admin, price_cents=1000))).json()
    assert placed["status"] == "confirmed"
    return placed, Thing("POST", f"/orders/{placed['id']}/cancel", 202, learner)


async def test_what_was_cancelled_without_an_answer_is_cancelled_when_it_is_asked_again(town: Town) -> None:
    placed, cancelling = await bought(town)
    await town.lose_answer_to(cancelling.method, cancelling.path, cancelling.headers)
    for client in (town.here, town.there):
        again = await cancelling.undo(client)
        assert (again.status_code, again.json()["reason"]) == (202, "by the user")
        assert (await client.get(f"/orders/{placed['id']}", headers=cancelling.headers)).json() == again.json()


async def test_what_is_cancelled_twice_at_once_gets_the_same_answer_twice(town: Town) -> None:
    _, cancelling = await bought(town)
    await cancelling.undo_at_once(town)
