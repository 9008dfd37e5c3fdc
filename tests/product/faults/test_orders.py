"""Each seat is sold once, and each order ends, whoever dies meanwhile."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from tests.product.killed import STRIDE, killed_at
from tests.product.orders import order, seats
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.stores.stores import Stores
from tristore.testing.lab import LONG, App, RawConnection, until
from tristore.testing.outbox import query

pytestmark = pytest.mark.timeout(300)
Headers = dict[str, str]
ORDERS = 500 if LONG else 75
PATIENT = {"ORDER_DEADLINE": "120"}
"""So that no order of these tests is cancelled for its deadline."""


@pytest.fixture(scope="module")
async def shop(lab: Lab) -> AsyncIterator[Lab]:
    """Databases of its own: for as long as orders may take, other tests would find something owed."""
    async with fresh_databases(lab.servers) as settings:
        yield lab.on(settings)


@pytest.fixture(scope="module")
async def stores(shop: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(shop.settings) as stores:
        yield stores


@pytest.fixture(scope="module")
async def app(shop: Lab) -> AsyncIterator[App]:
    async with shop.app(**PATIENT) as app:
        yield app


@pytest.fixture(scope="module")
async def admin(app: App, stores: Stores) -> Headers:
    return await register_admin(app.client, stores)


async def statuses(stores: Stores, course: dict[str, Any]) -> dict[str, int]:
    sql = "SELECT coalesce(reason, status) AS what, count(*) AS n FROM orders WHERE course_id = :id GROUP BY 1"
    return {row.what: row.n for row in await query(stores, sql, id=course["id"])}


async def until_decided(stores: Stores, course: dict[str, Any]) -> None:
    async def none_pending() -> bool:
        return "pending" not in await statuses(stores, course)

    await until(none_pending, 60)


async def until_answered(apps: list[App], headers: Headers, course: dict[str, Any], key: str) -> int:
    """As a client does it: the same key again, at any app that runs now, until it knows. Returns the status."""
    sent = headers | {"Idempotency-Key": key}
    while True:
        with suppress(OSError, TimeoutError, EOFError, IndexError):  # the app was killed meanwhile, or none runs
            async with asyncio.timeout(10), RawConnection.to(secrets.choice(apps)) as connection:
                status, answer = await connection.post("/orders", sent, {"course_id": course["id"]})
            if status != 503 and "in progress" not in str(answer):
                return status
        await asyncio.sleep(random.uniform(0.2, 1.5))


async def assert_books_balance(stores: Stores, course: dict[str, Any], orders: int, sold: int) -> None:
    """What each store says of the orders of a course, of which each is for one seat."""
    counted = await statuses(stores, course)
    assert (sum(counted.values()), counted.get("confirmed", 0)) == (orders, sold)
    assert (await seats(stores, course))["taken"] == sold
    ledger = "SELECT count(*) AS n, sum(points) AS points FROM points_ledger JOIN orders o ON o.id = order_id"
    row = (await query(stores, f"{ledger} WHERE course_id = :id", id=course["id"]))[0]
    assert (row.n, row.points or 0) == (sold, sold * (course["price_cents"] // 100))
    ends = "SELECT DISTINCT o.status, s.state = 'done' AS done FROM orders o JOIN sagas s USING (id)"
    found = await query(stores, f"{ends} WHERE course_id = :id", id=course["id"])
    assert {tuple(row) for row in found} <= {("confirmed", True), ("cancelled", False)}


async def test_killed_at_any_call_to_a_store_an_order_is_placed_once_and_decided(
    shop: Lab, app: App, stores: Stores, admin: Headers
) -> None:
    died = 0
    for n in range(1, 120, STRIDE):
        course = await new_course(app.client, admin)
        learner = await register(app.client)
        key = {"Idempotency-Key": secrets.token_hex(8)}
        if not await killed_at(shop, n, "POST", "/orders", learner | key, {"course_id": course["id"]}):
            break
        died += 1
        await until_answered([app], learner, course, key["Idempotency-Key"])
        await query(stores, "UPDATE outbox_streams SET due_at = clock_timestamp()")  # its leases have run out
        await until_decided(stores, course)
        await assert_books_balance(stores, course, orders=1, sold=1)
    assert died >= 25 // STRIDE


async def test_killed_at_any_call_to_a_store_an_order_is_cancelled_once_or_stays(
    shop: Lab, app: App, stores: Stores, admin: Headers
) -> None:
    cancelled = []
    for n in range(1, 120, STRIDE):
        course = await new_course(app.client, admin)
        learner = await register(app.client)
        placed = (await order(app.client, learner, course)).json()
        if not await killed_at(shop, n, "POST", f"/orders/{placed['id']}/cancel", learner, None):
            break
        await query(stores, "UPDATE outbox_streams SET due_at = clock_timestamp()")
        state = "SELECT state FROM sagas WHERE id = :id"

        async def at_an_end(id_: str = placed["id"], state: str = state) -> bool:
            return (await query(stores, state, id=id_))[0].state in {"done", "compensated"}

        await until(at_an_end, 20)
        shown = (await app.client.get(f"/orders/{placed['id']}", headers=learner)).json()
        cancelled.append(shown["status"] == "cancelled")
        kept = not cancelled[-1]
        assert (await seats(stores, course))["taken"] == kept
        assert shown["points"] == kept * (course["price_cents"] // 100)
    assert len(cancelled) >= 20 // STRIDE
    assert cancelled == sorted(cancelled)  # it stays up to the commit, and is cancelled from there on
    assert set(cancelled) == {False, True}


@pytest.mark.timeout(600)
async def test_orders_for_a_fifth_as_many_seats_while_apps_are_killed_sell_each_seat_once(
    shop: Lab, app: App, stores: Stores, admin: Headers
) -> None:
    course = await new_course(app.client, admin, capacity=ORDERS // 5)
    learners = [await register(app.client) for _ in range(25)]  # at once, the last would wait too long for its turn
    kill_after = [ORDERS * share // 100 for share in (4, 12, 20, 40, 70)]  # answers
    kills = answered = 0
    over = asyncio.Event()
    apps: list[App] = []
    under_way = asyncio.Semaphore(ORDERS if STRIDE == 1 else 25)  # all at once takes minutes, and most of them refusing

    async def keep_running() -> None:
        while not over.is_set():
            async with shop.app(**PATIENT) as mine:
                apps.append(mine)
                ended = [asyncio.ensure_future(mine.process.wait()), asyncio.ensure_future(over.wait())]
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
                ended[1].cancel()
                apps.remove(mine)

    async def buy(number: int) -> int:
        nonlocal kills, answered
        async with under_way:
            status = await until_answered(apps, learners[number % 25], course, f"buy-{number}")
        answered += 1
        if answered in kill_after and apps:
            kills += 1
            apps[0].process.kill()
        return status

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(keep_running())

        async def both_run() -> bool:
            return len(apps) == 2

        await until(both_run, 60)
        answers = await asyncio.gather(*(buy(number) for number in range(ORDERS)))
        await until_decided(stores, course)
        over.set()
    assert set(answers) <= {201, 202, 409}
    assert kills >= 3
    assert await statuses(stores, course) == {"confirmed": ORDERS // 5, "sold out": ORDERS - ORDERS // 5}
    await assert_books_balance(stores, course, orders=ORDERS, sold=ORDERS // 5)


async def test_without_mongodb_orders_wait_until_it_is_back_or_their_deadline_has_passed(
    shop: Lab, app: App, stores: Stores, admin: Headers
) -> None:
    async with shop.app(ORDER_DEADLINE="1") as hasty:
        courses = [await new_course(app.client, admin) for _ in range(2)]
        learner = await register(app.client)
        async with shop.without("mongodb", "killed"):
            answers = [
                await order(at.client, learner, course)
                for at, course in zip((app, hasty), courses, strict=True)
                for _ in range(3)
            ]
            assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(202, "pending")] * 6
            await asyncio.sleep(1)  # the hasty ones' deadline
        for course in courses:
            await until_decided(stores, course)
    assert [await statuses(stores, course) for course in courses] == [{"confirmed": 3}, {"deadline": 3}]
    await assert_books_balance(stores, courses[0], orders=3, sold=3)
    await assert_books_balance(stores, courses[1], orders=3, sold=0)


async def test_orders_during_an_outage_of_postgresql_are_placed_once_when_it_is_back(
    shop: Lab, app: App, stores: Stores, admin: Headers
) -> None:
    course = await new_course(app.client, admin, capacity=100)
    learner = await register(app.client)
    async with shop.without("postgresql", "killed"):
        refused = await order(app.client, learner, course, key="order-0")
        assert (refused.status_code, int(refused.headers["Retry-After"]) >= 1) == (503, True)
        waiting = [asyncio.create_task(until_answered([app], learner, course, f"order-{n}")) for n in range(10)]
    assert set(await asyncio.gather(*waiting)) <= {201, 202}
    await until_decided(stores, course)
    await assert_books_balance(stores, course, orders=10, sold=10)
