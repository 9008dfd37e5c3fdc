"""`manage.py check` on orders and seats."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.product.checking import run_check, wrong
from tests.product.orders import order, seats
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.models import new_id, now
from tristore.stores.stores import Stores
from tristore.testing.lab import App, until
from tristore.testing.outbox import query

pytestmark = pytest.mark.timeout(300)
MISCOUNTED = "courses whose seats are not those that are sold"


@pytest.fixture
async def apart(lab: Lab) -> AsyncIterator[Lab]:
    """The lab's servers with databases of its own, in which nothing is wrong yet."""
    async with fresh_databases(lab.servers, order_deadline=3) as settings:
        yield lab.on(settings)


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


@pytest.fixture
async def app(apart: Lab) -> AsyncIterator[App]:
    async with apart.app() as app:
        yield app


@pytest.fixture
async def course(app: App, stores: Stores) -> dict[str, Any]:
    return await new_course(app.client, await register_admin(app.client, stores), capacity=1000)


async def buy(app: App, headers: dict[str, str], course: dict[str, Any]) -> None:
    """Place an order, and cancel every third, again and again."""
    number = 0
    while True:
        placed = await order(app.client, headers, course)
        number += 1
        if placed.status_code == 201 and number % 3 == 0:
            await app.client.post(f"/orders/{placed.json()['id']}/cancel", headers=headers)


async def test_beside_a_busy_service_each_seat_is_accounted_for(
    apart: Lab, app: App, stores: Stores, course: dict[str, Any]
) -> None:
    buyers = [asyncio.create_task(buy(app, await register(app.client), course)) for _ in range(3)]
    try:
        sold = 0
        while sold < 20:
            told = await run_check(apart)
            assert [(kind, check["wrong"]) for kind, check in told.items() if check["wrong"]] == []
            assert told[MISCOUNTED]["looked_at"] == 1
            [[sold]] = await query(stores, "SELECT count(*) FROM orders WHERE status = 'confirmed'")
    finally:
        for buyer in buyers:
            buyer.cancel()
        ends = await asyncio.gather(*buyers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def nothing_moves() -> bool:
        return not (await run_check(apart))[MISCOUNTED]["under_way"]

    await until(nothing_moves, 60)


async def test_seats_that_are_not_sold_are_found_and_given_back(
    apart: Lab, app: App, stores: Stores, course: dict[str, Any]
) -> None:
    headers = await register(app.client)
    assert (await order(app.client, headers, course, quantity=2)).status_code == 201
    assert await wrong(apart.settings, stores) == {}
    seats_of = stores.mongodb.database.seats
    await seats_of.update_one({"_id": course["id"]}, {"$inc": {"taken": 5}})
    assert await wrong(apart.settings, stores) == {MISCOUNTED: {course["id"]: "7 are taken and 2 sold: add -5"}}
    await seats_of.update_one({"_id": course["id"]}, {"$inc": {"taken": -5}})
    lost = {"id": str(new_id()), "quantity": 1, "until": now()}
    await seats_of.update_one({"_id": course["id"]}, {"$push": {"markers": lost}})
    assert await wrong(apart.settings, stores) == {MISCOUNTED: {course["id"]: f"nobody drops the markers {lost['id']}"}}
    await seats_of.update_one({"_id": course["id"]}, {"$pull": {"markers": {"id": lost["id"]}}})
    assert await wrong(apart.settings, stores) == {}
    assert (await seats(stores, course))["taken"] == 2


async def test_courses_and_seats_that_have_lost_each_other_are_found(
    apart: Lab, stores: Stores, course: dict[str, Any]
) -> None:
    alone = str(new_id())
    await stores.mongodb.database.seats.insert_one({"_id": alone, "taken": 0, "markers": []})
    await stores.mongodb.database.seats.delete_one({"_id": course["id"]})
    assert await wrong(apart.settings, stores) == {
        "courses without seats": {course["id"]: ""},
        "seats of no course": {alone: ""},
    }


async def test_a_course_whose_orders_never_rest_is_under_way(
    apart: Lab, app: App, stores: Stores, course: dict[str, Any]
) -> None:
    headers = await register(app.client)
    assert (await order(app.client, headers, course)).status_code == 201
    await stores.mongodb.database.seats.update_one({"_id": course["id"]}, {"$inc": {"taken": 1}})
    await query(stores, "UPDATE sagas SET state = 'compensating'")
    told = (await run_check(apart))[MISCOUNTED]
    assert (told["wrong"], told["under_way"]) == ({}, 1)
