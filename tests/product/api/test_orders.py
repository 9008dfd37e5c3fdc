"""Orders through the API, checked on the stores themselves."""

import asyncio
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text

from config import Settings
from database.postgres import start_budget
from main import create_app
from models.session import SignedIn
from tests.product.orders import order, seats
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tristore.models import new_id
from tristore.stores.stores import Stores, open_stores
from tristore.testing.outbox import query
from tristore.testing.stores import client_of

Headers = dict[str, str]


@pytest.fixture
async def learner(client: httpx.AsyncClient) -> Headers:
    return await register(client)


def brisk(stores: Stores) -> Stores:
    """What may land late in MongoDB is waited for as long as an operation may take: here not the patience of tests."""
    return replace(stores, mongodb=replace(stores.mongodb, timeout=0.8))


async def until_placed(client: httpx.AsyncClient, headers: Headers, course: dict[str, Any], key: str) -> httpx.Response:
    """As a client does it: the same key again until there is an answer."""
    while (answer := await order(client, headers, course, key=key)).status_code == 503:
        await asyncio.sleep(int(answer.headers["Retry-After"]))
    return answer


async def until_settled(stores: Stores, course: dict[str, Any]) -> None:
    """Until nothing is owed any more for the orders of a course."""
    mine = "payload ->> 'saga_id' IN (SELECT CAST(id AS text) FROM orders WHERE course_id = :id)"
    owed = f"SELECT count(*) AS n FROM outbox WHERE (payload ->> 'course_id' = :text OR {mine})"
    async with asyncio.timeout(20):
        while (await query(stores, owed, id=course["id"], text=course["id"]))[0].n:
            await asyncio.sleep(0.05)


async def test_an_order_takes_seats_and_earns_points(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, price_cents=4950, capacity=20)
    answer = await order(client, learner, course, quantity=3)
    placed = answer.json()
    assert (answer.status_code, placed["status"], placed["reason"]) == (201, "confirmed", None)
    assert (placed["price_cents"], placed["points"]) == (14_850, 148)
    assert placed["course"] == {name: course[name] for name in ("id", "title", "language", "level")}
    assert (await client.get(f"/orders/{placed['id']}", headers=learner)).json() == placed
    page = (await client.get("/orders", headers=learner)).json()
    assert page == {"items": [placed], "next_cursor": None, "points": 148}
    assert (await client.get(f"/courses/{course['id']}")).json()["seats_left"] == 17
    assert (await client.get("/users/me/activity", headers=learner)).json()["items"][0]["action"] == "order_placed"


async def test_sold_out_is_a_conflict_and_leaves_nothing_behind(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, capacity=2)
    assert (await order(client, learner, course, quantity=2)).status_code == 201
    refused = await order(client, learner, course)
    assert (refused.status_code, "sold out" in refused.json()["detail"]) == (409, True)
    assert (await seats(stores, course))["taken"] == 2
    shown = (await client.get("/orders", headers=learner)).json()["items"][0]
    assert (shown["status"], shown["reason"], shown["points"]) == ("cancelled", "sold out", 0)


async def test_a_repeated_key_is_one_order_and_tells_its_present_state(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, capacity=5)
    first, second = [await order(client, learner, course, key="k") for _ in range(2)]
    assert (first.status_code, second.status_code, first.json()) == (201, 201, second.json())
    assert [answer.headers.get("Idempotency-Replayed") for answer in (first, second)] == [None, "true"]
    assert (await seats(stores, course))["taken"] == 1
    assert (await order(client, learner, course, key="k", quantity=2)).status_code == 422
    other = await order(client, await register(client), course, key="k")
    assert other.json()["id"] != first.json()["id"]
    assert (await client.post(f"/orders/{first.json()['id']}/cancel", headers=learner)).status_code == 202
    cancelled = await order(client, learner, course, key="k")
    assert (cancelled.status_code, cancelled.headers["Idempotency-Replayed"]) == (409, "true")


async def test_a_request_waits_for_no_second_connection(settings: Settings) -> None:
    """Requests that each hold one and wait for another would stop each other."""
    async with open_stores(settings.model_copy(update={"postgres_pool_size": 1})) as stores:
        async with client_of(create_app(settings, stores)) as client:
            learner, course = await register(client), await new_course(client, await register_admin(client, stores))
            first, again = [await order(client, learner, course, key="k") for _ in range(2)]
            assert (first.status_code, again.status_code) == (201, 201)
            path = f"/orders/{first.json()['id']}"
            assert (await client.post(f"{path}/cancel", headers=learner)).status_code == 202
            for shown in ("/orders", path, "/users/me/export"):
                assert (await client.get(shown, headers=learner)).status_code == 200


async def test_an_order_at_another_price_than_expected_is_none(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, price_cents=1000)
    expected = {"quantity": 2, "expected_price_cents": 1000, "key": "k"}
    assert (await order(client, learner, course, **expected)).status_code == 201
    await client.patch(f"/courses/{course['id']}", headers=admin, json={"price_cents": 1001})
    assert (await order(client, learner, course, **expected)).status_code == 201  # placed before
    refused = await order(client, learner, course, **expected | {"key": "new"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/price-changed")
    assert "1001 cents" in refused.json()["detail"]
    assert len((await client.get("/orders", headers=learner)).json()["items"]) == 1
    assert (await seats(stores, course))["taken"] == 2
    assert (await order(client, learner, course, **expected | {"expected_price_cents": 1001, "key": "new"})).is_success


async def test_cancelling_takes_back_points_and_gives_back_seats_once(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, price_cents=1000, capacity=5)
    placed = (await order(client, learner, course, quantity=2)).json()
    path = f"/orders/{placed['id']}"
    answers = await asyncio.gather(*(client.post(f"{path}/cancel", headers=learner) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    again = await client.post(f"{path}/cancel", headers=learner)
    assert {str(answer.json()) for answer in (*answers, again)} == {str(answers[0].json())}
    actions = (await client.get("/users/me/activity", headers=learner)).json()["items"]
    assert [item["action"] for item in actions].count("order_cancelled") == 1
    shown = (await client.get(path, headers=learner)).json()
    assert (shown["status"], shown["reason"], shown["points"]) == ("cancelled", "by the user", 0)
    assert (await seats(stores, course))["taken"] == 0
    assert (await client.get("/orders", headers=learner)).json()["points"] == 0


@pytest.mark.parametrize("fate", ["confirmed", "sold out", "cancelled"])
async def test_the_seats_document_keeps_no_history(stores: Stores, settings: Settings, fate: str) -> None:
    async with client_of(create_app(settings.model_copy(update={"order_deadline": 1}), brisk(stores))) as client:
        learner = await register(client)
        course = await new_course(client, await register_admin(client, stores), capacity=1)
        placed = await order(client, learner, course, quantity=2 if fate == "sold out" else 1)
        if fate == "cancelled":
            await client.post(f"/orders/{placed.json()['id']}/cancel", headers=learner)
        await until_settled(stores, course)
    assert await seats(stores, course) == {"_id": course["id"], "taken": int(fate == "confirmed"), "markers": []}
    state = "done" if fate == "confirmed" else "compensated"
    of_course = "SELECT s.state FROM sagas s JOIN orders o USING (id) WHERE o.course_id = :id"
    assert [row.state for row in await query(stores, of_course, id=course["id"])] == [state]


async def test_a_deleted_course_cannot_be_ordered(client: httpx.AsyncClient, admin: Headers, learner: Headers) -> None:
    course = await new_course(client, admin)
    await client.delete(f"/courses/{course['id']}", headers=admin)
    assert (await order(client, learner, course)).status_code == 404
    assert (await order(client, learner, {"id": str(new_id())})).status_code == 404


async def test_seats_that_are_not_counted_yet_are_waited_for(stores: Stores, settings: Settings) -> None:
    """They are not sold out: the order is pending, and confirmed when MongoDB has got what it was owed."""
    async with client_of(create_app(settings, stores)) as client:
        course = await new_course(client, await register_admin(client, stores))
        learner = await register(client)
        await stores.mongodb.database.seats.delete_one({"_id": course["id"]})
        pending = await order(client, learner, course)
        assert (pending.status_code, pending.json()["status"]) == (202, "pending")
        assert (await client.post(f"/orders/{pending.json()['id']}/cancel", headers=learner)).status_code == 409
        await stores.mongodb.database.seats.insert_one({"_id": course["id"], "taken": 0, "markers": []})
        await until_confirmed(client, learner, pending.json()["id"])


async def until_confirmed(client: httpx.AsyncClient, headers: Headers, order_id: str) -> None:
    async with asyncio.timeout(10):
        while (await client.get(f"/orders/{order_id}", headers=headers)).json()["status"] != "confirmed":
            await asyncio.sleep(0.05)


async def test_an_order_that_misses_its_deadline_is_cancelled(stores: Stores, settings: Settings) -> None:
    async with client_of(create_app(settings.model_copy(update={"order_deadline": 1}), brisk(stores))) as client:
        course = await new_course(client, await register_admin(client, stores))
        learner = await register(client)
        await stores.mongodb.database.seats.update_one({"_id": course["id"]}, {"$set": {"markers": [FULL] * 1000}})
        pending = await order(client, learner, course)
        assert pending.status_code == 202
        await until_settled(stores, course)
        shown = (await client.get(f"/orders/{pending.json()['id']}", headers=learner)).json()
    assert (shown["status"], shown["reason"]) == ("cancelled", "deadline")
    assert (await seats(stores, course))["taken"] == 0


FULL = {"id": "another", "quantity": 0, "until": datetime(2000, 1, 1, tzinfo=UTC)}


async def test_erasure_cancels_what_is_pending_and_keeps_orders_and_ledger(stores: Stores, settings: Settings) -> None:
    async with client_of(create_app(settings.model_copy(update={"order_deadline": 1}), brisk(stores))) as client:
        admin = await register_admin(client, stores)
        open_course, waiting_course = [await new_course(client, admin, price_cents=1000) for _ in range(2)]
        await stores.mongodb.database.seats.delete_one({"_id": waiting_course["id"]})
        learner = await register(client)
        kept = (await order(client, learner, open_course)).json()["id"]
        pending = (await order(client, learner, waiting_course)).json()["id"]
        assert (await client.delete("/users/me", headers=learner)).status_code == 202
        await stores.mongodb.database.seats.insert_one({"_id": waiting_course["id"], "taken": 0, "markers": []})
        await until_settled(stores, waiting_course)
    of_user = "SELECT CAST(id AS text), status, reason FROM orders WHERE user_id = :id ORDER BY id"
    rows = await query(stores, of_user, id=learner["X-User-Id"])
    assert [tuple(row) for row in rows] == [(kept, "confirmed", None), (pending, "cancelled", "erased")]
    ledger = await query(stores, "SELECT points FROM points_ledger WHERE user_id = :id", id=learner["X-User-Id"])
    assert [row.points for row in ledger] == [10]
    assert (await seats(stores, waiting_course))["taken"] == 0


async def test_pages_and_their_statements(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    """Newest first, and as many statements for a hundred orders as for one."""
    courses = [await new_course(client, admin, title=f"c{number}") for number in range(4)]
    ids = [(await order(client, learner, courses[number % 4])).json()["id"] for number in range(30)]
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    counts = {}
    event.listen(stores.postgres.engine.sync_engine, "before_cursor_execute", note)
    for limit in (1, 30):
        statements.clear()
        page = (await client.get("/orders", headers=learner, params={"limit": limit})).json()
        assert [item["id"] for item in page["items"]] == ids[::-1][:limit]
        assert {item["course"]["title"] for item in page["items"]} <= {"c0", "c1", "c2", "c3"}
        counts[limit] = len(statements)
    event.remove(stores.postgres.engine.sync_engine, "before_cursor_execute", note)
    assert counts[1] == counts[30] == 3
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/orders", headers=learner, params={"limit": 7, **cursor})).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids[::-1]


async def test_of_many_orders_at_once_as_many_are_confirmed_as_there_are_seats(
    client: httpx.AsyncClient, stores: Stores, admin: Headers
) -> None:
    course = await new_course(client, admin, capacity=7)
    learners = [await register(client) for _ in range(3)]
    answers = await asyncio.gather(*(until_placed(client, learners[n % 3], course, str(n)) for n in range(30)))
    assert {answer.status_code for answer in answers} <= {201, 202, 409}
    of_status = "SELECT count(*) AS n FROM orders WHERE course_id = :id AND status = :status"
    async with asyncio.timeout(60):
        while (await query(stores, of_status, id=course["id"], status="pending"))[0].n:
            await asyncio.sleep(0.05)
    confirmed = (await query(stores, of_status, id=course["id"], status="confirmed"))[0].n
    assert confirmed == (await seats(stores, course))["taken"] == 7


async def test_the_ledger_takes_an_entry_of_a_kind_once(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    placed = (await order(client, learner, await new_course(client, admin))).json()
    again = "INSERT INTO points_ledger (user_id, order_id, kind, points) SELECT user_id, id, 'earned', 1 FROM orders"
    async with stores.postgres.background.connect() as connection:
        with pytest.raises(Exception, match="uq_points_ledger_order_id_kind"):
            await connection.execute(text(f"{again} WHERE id = :id"), {"id": placed["id"]})


async def test_the_export_has_orders_with_their_courses_and_points(
    client: httpx.AsyncClient, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin, price_cents=1000)
    placed = [(await order(client, learner, course)).json()["id"] for _ in range(3)]
    await client.post(f"/orders/{placed[1]}/cancel", headers=learner)
    exported = (await client.get("/users/me/export", headers=learner)).json()
    assert exported["orders"] == (await client.get("/orders", headers=learner)).json()["items"]
    assert [order["points"] for order in exported["orders"]] == [10, 0, 10]
    assert {order["course"]["title"] for order in exported["orders"]} == {course["title"]}
    assert {"order_placed", "order_cancelled"} <= {item["action"] for item in exported["activity"]}


async def test_an_export_has_more_than_one_page_of_orders(
    client: httpx.AsyncClient, stores: Stores, admin: Headers, learner: Headers
) -> None:
    await add_orders(stores, learner["X-User-Id"], (await new_course(client, admin))["id"], 350)
    exported = (await client.get("/users/me/export", headers=learner)).json()
    assert len(exported["orders"]) == len({order["id"] for order in exported["orders"]}) == 350


async def add_orders(stores: Stores, user_id: str, course_id: str, count: int) -> None:
    orders = "INSERT INTO orders (id, user_id, course_id, quantity, price_cents)"
    values = "SELECT gen_random_uuid(), :user_id, :course_id, 1, 0 FROM generate_series(1, :count)"
    await query(stores, f"{orders} {values}", user_id=user_id, course_id=course_id, count=count)


async def test_an_export_takes_the_time_it_needs(settings: Settings, stores: Stores) -> None:
    """More than one request may wait for PostgreSQL: each page has its own."""
    app = create_app(settings, stores)
    async with client_of(app) as client:
        headers = await register(client)
        course = await new_course(client, await register_admin(client, stores))
        await add_orders(stores, headers["X-User-Id"], course["id"], 250)
        who = SignedIn(user_id=uuid.UUID(headers["X-User-Id"]), session_id=new_id())
        pieces = await app.state.services.privacy.export(who)
        start_budget(0)
        exported = json.loads(b"".join([piece async for piece in pieces]))
    assert len(exported["orders"]) == 250


async def test_beyond_the_most_no_order_is_placed_and_what_was_is_told(
    settings: Settings, stores: Stores, client: httpx.AsyncClient, admin: Headers, learner: Headers
) -> None:
    course = await new_course(client, admin)
    async with client_of(create_app(settings.model_copy(update={"orders_per_user": 2}), stores)) as few:
        placed = [await order(few, learner, course, key=key) for key in "abb"]
        assert [answer.status_code for answer in placed] == [201, 201, 201]
        assert placed[1].json()["id"] == placed[2].json()["id"]
        refused = await order(few, learner, course)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many")
        assert refused.json()["detail"] == "A user may have 2 orders."
        assert (await seats(stores, course))["taken"] == 2
        assert (await order(few, await register(few), course)).status_code == 201
