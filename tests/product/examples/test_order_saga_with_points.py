"""An order over three databases: seats in MongoDB, points in MySQL, the order in PostgreSQL."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from examples.mysql_points.tables import POINTS
from tests.product.examples.points import Shop, status
from tests.product.metrics import scrape
from tests.product.orders import order
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tristore.testing.lab import LONG, App, Fault, RawConnection, until
from tristore.testing.outbox import query
from tristore.testing.proxy import proxy_to

pytestmark = pytest.mark.timeout(300)
Headers = dict[str, str]
ORDERS, AT_ONCE, DEADLINE, AWAY_SECONDS = (1000, 25, "10", 2) if LONG else (100, 8, "5", 0.5)
PRICE = 2500
POINTS_EACH = PRICE // 100
CREDIT = b"user_id, points) VALUES"
"""In the statement that credits points. A revocation has another column."""


@dataclass(frozen=True)
class Rows:
    """What the three stores have of all orders."""

    orders: dict[uuid.UUID, Any]
    sagas: dict[uuid.UUID, str]
    points: dict[uuid.UUID, Any]
    seats: dict[str, dict[str, Any]]
    ledger: int


async def take(shop: Shop) -> Rows:
    async with shop.mysql.operation() as connection:
        points = (await connection.execute(select(POINTS))).all()
    seats: list[Any] = await shop.stores.mongodb.database.seats.find({}).to_list(None)
    return Rows(
        orders={row.id: row for row in await query(shop.stores, "SELECT * FROM orders")},
        sagas={row.id: row.state for row in await query(shop.stores, "SELECT id, state FROM sagas")},
        points={row.order_id: row for row in points},
        seats={document["_id"]: document for document in seats},
        ledger=len(await query(shop.stores, "SELECT 1 FROM points_ledger")),
    )


def assert_all_decided_alike(rows: Rows) -> Counter[str]:
    """Each order is decided, and the stores agree how. Returns how many there are of each kind."""
    sold: Counter[str] = Counter()
    for id_, placed in rows.orders.items():
        is_confirmed = placed.status == "confirmed"
        assert (placed.status, rows.sagas[id_]) in {("confirmed", "done"), ("cancelled", "compensated")}, placed
        sold[str(placed.course_id)] += placed.quantity if is_confirmed else 0
        row = rows.points.get(id_)
        assert (row is not None and row.revoked_at is None) == is_confirmed, (placed, row)
        if row is not None:
            assert (row.user_id, row.points) == (placed.user_id, placed.price_cents // 100)
    assert rows.points.keys() <= rows.orders.keys()
    assert {id_: document["taken"] for id_, document in rows.seats.items()} == {id_: sold[id_] for id_ in rows.seats}
    assert rows.ledger == 0  # of PostgreSQL: it has points of orders from before
    return Counter(placed.reason or placed.status for placed in rows.orders.values())


async def until_all_is_decided(shop: Shop, seconds: float = 60) -> None:
    async def none_open() -> bool:
        with suppress(Exception):  # a store may still be starting
            sql = "SELECT 1 FROM sagas WHERE state NOT IN ('done', 'compensated') LIMIT 1"
            return not await query(shop.stores, sql)
        return False

    await until(none_open, seconds)


async def decided(client: httpx.AsyncClient, learner: Headers, placed: dict[str, Any]) -> dict[str, Any]:
    """The order as it is once it is no longer pending."""
    shown = placed

    async def is_decided() -> bool:
        nonlocal shown
        shown = (await client.get(f"/orders/{placed['id']}", headers=learner)).json()
        return bool(shown["status"] != "pending")

    await until(is_decided, 30)
    return shown


@pytest.fixture
async def app(shop: Shop) -> AsyncIterator[App]:
    async with shop.app() as app:
        yield app


@pytest.fixture
async def admin(app: App, shop: Shop) -> Headers:
    return await register_admin(app.client, shop.stores)


async def balance(client: httpx.AsyncClient, learner: Headers) -> int:
    return int((await client.get("/orders", headers=learner)).json()["points"])


async def serves(client: httpx.AsyncClient) -> list[float]:
    return [number for (name, _), number in (await scrape(client)).items() if name == "mysql_serves"]


async def test_an_order_earns_points_in_mysql_and_cancelling_takes_them_back(
    shop: Shop, app: App, admin: Headers
) -> None:
    course = await new_course(app.client, admin, price_cents=PRICE)
    learner = await register(app.client)
    placed = await order(app.client, learner, course, quantity=2)
    assert (placed.status_code, placed.json()["points"]) == (201, 2 * POINTS_EACH)
    path = f"/orders/{placed.json()['id']}"
    assert (await app.client.get(path, headers=learner)).json() == placed.json()
    page = (await app.client.get("/orders", headers=learner)).json()
    assert (page["items"], page["points"]) == ([placed.json()], 2 * POINTS_EACH)
    assert await serves(app.client) == [1]
    cancelled = await app.client.post(f"{path}/cancel", headers=learner)
    assert (cancelled.status_code, cancelled.json()["points"]) == (202, 0)
    await until_all_is_decided(shop)
    assert await balance(app.client, learner) == 0
    assert assert_all_decided_alike(await take(shop)) == {"by the user": 1}


async def test_orders_from_before_keep_their_points_and_lose_them_when_they_are_cancelled(
    shop: Shop, app: App, admin: Headers
) -> None:
    learner = await register(app.client)
    courses = [await new_course(app.client, admin, price_cents=PRICE) for _ in range(2)]
    async with shop.product() as before:
        placed = [(await order(before.client, learner, course)).json() for course in courses]
    assert [one["status"] for one in placed] == ["confirmed"] * 2
    assert (await order(app.client, learner, courses[0])).status_code == 201
    assert await balance(app.client, learner) == 3 * POINTS_EACH
    await app.client.post(f"/orders/{placed[0]['id']}/cancel", headers=learner)
    await until_all_is_decided(shop)
    assert await balance(app.client, learner) == 2 * POINTS_EACH
    assert len((await take(shop)).points) == 1


@pytest.mark.parametrize("fault", ["stopped", "killed"])
async def test_without_mysql_orders_wait_until_it_is_back(shop: Shop, app: App, admin: Headers, fault: Fault) -> None:
    course = await new_course(app.client, admin, price_cents=PRICE)
    learner = await register(app.client)
    async with shop.app(ORDER_DEADLINE="120") as patient:
        async with shop.mariadb.away(fault):
            placed = [await order(patient.client, learner, course) for _ in range(3)]
            assert [(answer.status_code, answer.json()["status"]) for answer in placed] == [(202, "pending")] * 3
            refused = await patient.client.get("/orders", headers=learner)
            assert (refused.status_code, refused.json()["store"]) == (503, "mysql")
            assert await serves(patient.client) == [0]
            for answer in placed:  # what only PostgreSQL is asked for goes on
                path = f"/orders/{answer.json()['id']}"
                assert (await patient.client.get(path, headers=learner)).status_code == 200
        await until_all_is_decided(shop)
        assert await balance(patient.client, learner) == 3 * POINTS_EACH
    assert assert_all_decided_alike(await take(shop)) == {"confirmed": 3}


async def test_an_order_that_mysql_misses_the_deadline_of_gives_its_seats_back(
    shop: Shop, app: App, admin: Headers
) -> None:
    course = await new_course(app.client, admin, price_cents=PRICE)
    learner = await register(app.client)
    async with shop.app(ORDER_DEADLINE="1") as hasty:
        async with shop.mariadb.away("killed"):
            placed = (await order(hasty.client, learner, course)).json()
            shown = await decided(hasty.client, learner, placed)
            assert (shown["status"], shown["reason"], shown["points"]) == ("cancelled", "deadline", 0)
        await until_all_is_decided(shop)
    assert assert_all_decided_alike(await take(shop)) == {"deadline": 1}


async def test_points_whose_answer_was_lost_are_credited_once(shop: Shop, app: App, admin: Headers) -> None:
    course = await new_course(app.client, admin, price_cents=PRICE)
    learner = await register(app.client)
    async with proxy_to(shop.mariadb.port) as proxy:
        dsn = shop.mariadb.dsn(shop.database, port=proxy.port)
        async with shop.app(MYSQL_DSN=dsn, ORDER_DEADLINE="60") as far:
            proxy.lose_answer_to = CREDIT
            placed = (await order(far.client, learner, course)).json()
            assert placed["status"] == "pending"
            assert proxy.lost >= 1
            proxy.lose_answer_to = b""
            assert (await decided(far.client, learner, placed))["status"] == "confirmed"
            assert await balance(far.client, learner) == POINTS_EACH
    assert assert_all_decided_alike(await take(shop)) == {"confirmed": 1}


async def test_points_that_land_after_the_order_was_given_up_are_not_credited(
    shop: Shop, app: App, admin: Headers
) -> None:
    course = await new_course(app.client, admin, price_cents=PRICE)
    learner = await register(app.client)
    async with proxy_to(shop.mariadb.port) as proxy:
        dsn = shop.mariadb.dsn(shop.database, port=proxy.port)
        async with shop.app(MYSQL_DSN=dsn, ORDER_DEADLINE="1") as far:
            proxy.hold(CREDIT)
            placed = (await order(far.client, learner, course)).json()
            assert (await decided(far.client, learner, placed))["reason"] == "deadline"
            await until_all_is_decided(shop)
            assert proxy.held >= 1
            before = await status(shop.mariadb, "Com_insert")
            proxy.release()

            async def have_landed() -> bool:
                return await status(shop.mariadb, "Com_insert") >= before + proxy.held

            await until(have_landed, 10)
    assert assert_all_decided_alike(await take(shop)) == {"deadline": 1}


@dataclass
class Crowd:
    """Learners who order, as clients do it: the same key again until there is an answer, and then the order until it is
    decided. Some cancel what they got."""

    app: App
    learners: list[Headers]
    courses: list[dict[str, Any]]
    answered: int = 0
    under_way: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def buy(self, number: int) -> None:
        learner, course = self.learners[number % len(self.learners)], self.courses[number % len(self.courses)]
        sent = learner | {"Idempotency-Key": f"buy-{number}"}
        async with self.under_way:
            status, body = await self._until_answered("POST", "/orders", sent, {"course_id": course["id"]})
            assert status in {201, 202, 409}, body
            while status == 202 and body["status"] == "pending":
                await asyncio.sleep(0.2)
                _, body = await self._until_answered("GET", f"/orders/{body['id']}", learner)
            if number % 7 == 0 and body["status"] == "confirmed":
                await self._until_answered("POST", f"/orders/{body['id']}/cancel", learner)
        self.answered += 1

    async def _until_answered(self, method: str, path: str, headers: Headers, body: object = None) -> tuple[int, Any]:
        content = json.dumps(body).encode() if body else b""
        more = {"Content-Type": "application/json"} if body else {}
        while True:
            with suppress(OSError, TimeoutError, EOFError, IndexError):
                async with asyncio.timeout(10), RawConnection.to(self.app) as connection:
                    status, answer = await connection.request(method, path, headers | more, content)
                if status != 503 and "in progress" not in str(answer):
                    return status, answer
            await asyncio.sleep(random.uniform(0.1, 0.5))


@pytest.mark.timeout(600)
async def test_orders_while_each_of_the_three_is_killed_are_decided_once_with_points_and_seats_to_match(
    shop: Shop,
) -> None:
    async with shop.app(ORDER_DEADLINE=DEADLINE) as app:
        await sell_out(shop, app, await register_admin(app.client, shop.stores))


async def sell_out(shop: Shop, app: App, admin: Headers) -> None:
    capacities = [ORDERS, ORDERS, ORDERS, ORDERS // 10, 1]  # the last two are sold out
    courses = [await new_course(app.client, admin, price_cents=PRICE, capacity=most) for most in capacities]
    learners = [await register(app.client) for _ in range(10)]
    crowd = Crowd(app, learners, courses)

    def away(store: str) -> AbstractAsyncContextManager[None]:
        if store == "mysql":
            return shop.mariadb.away("killed")
        return shop.lab.without("mongodb" if store == "mongodb" else "postgresql", "killed")

    async def kill_each_in_turn() -> None:
        for share, store in ((10, "mongodb"), (35, "mysql"), (60, "postgresql"), (80, "mysql")):

            async def so_far(share: int = share) -> bool:
                return crowd.answered >= ORDERS * share // 100

            await until(so_far, 300)
            async with away(store):
                await asyncio.sleep(AWAY_SECONDS)

    killing = asyncio.create_task(kill_each_in_turn())
    await asyncio.gather(*(crowd.buy(number) for number in range(ORDERS)))
    await killing
    await until_all_is_decided(shop, 120)
    rows = await take(shop)
    assert len(rows.orders) == ORDERS
    counted = assert_all_decided_alike(rows)
    print(dict(counted))
    assert min(counted[kind] for kind in ("confirmed", "sold out", "by the user")) > 0
    for course, most in zip(courses, capacities, strict=True):
        assert rows.seats[course["id"]]["taken"] <= most
    earned = Counter(row.user_id for row in rows.orders.values() if row.status == "confirmed")
    for learner in learners:
        assert await balance(app.client, learner) == POINTS_EACH * earned[uuid.UUID(learner["X-User-Id"])]
