"""Activity, export and erasure through the API."""

import json
import secrets
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from config import Settings
from main import create_app
from models.session import SignedIn
from tests.product.people import account, register, register_admin, sign_in
from tests.product.things import new_course
from tests.product.traces import traces
from tests.under_test import fresh_databases
from tristore.models import new_id
from tristore.stores.postgres import start_budget
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.stores import Servers, client_of


async def test_activity_tells_what_the_user_did_newest_first(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    made = (await client.post("/conversations", headers=headers, json={"title": "t"})).json()["id"]
    await client.patch(f"/conversations/{made}", headers=headers, json={"title": "u"})
    await client.delete(f"/conversations/{made}", headers=headers)
    await client.patch("/users/me", headers=headers, json={"bio": "x"})
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = (await client.get("/users/me/activity", headers=headers, params={"limit": 2, **cursor})).json()
        seen += [item["action"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    expected = "profile_changed conversation_deleted conversation_renamed conversation_started signed_in registered"
    assert seen == expected.split()


async def test_activity_is_kept_for_a_set_time_only(stores: Stores) -> None:
    indexes = await stores.mongodb.database.activity.index_information()
    assert indexes["expiry"]["expireAfterSeconds"] == 90 * 86_400


async def test_exports_everything_as_one_document(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    course = await new_course(client, await register_admin(client, stores), price_cents=1000)
    orders = [await client.post("/orders", headers=headers, json={"course_id": course["id"]}) for _ in range(3)]
    await client.post(f"/orders/{orders[1].json()['id']}/cancel", headers=headers)
    made = [(await client.post("/conversations", headers=headers, json={"title": f"t{i}"})).json() for i in range(3)]
    for i in range(5):
        await client.post(f"/conversations/{made[0]['id']}/messages", headers=headers, json={"content": f"m{i}"})
    answer = await client.get("/users/me/export", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    exported = answer.json()
    assert exported["profile"] == (await client.get("/users/me", headers=headers)).json()
    assert [session["current"] for session in exported["sessions"]] == [True]
    assert exported["orders"] == (await client.get("/orders", headers=headers)).json()["items"]
    assert [order["points"] for order in exported["orders"]] == [10, 0, 10]
    assert {order["course"]["title"] for order in exported["orders"]} == {course["title"]}
    actions = {"registered", "signed_in", "conversation_started", "order_placed", "order_cancelled"}
    assert {item["action"] for item in exported["activity"]} == actions
    conversations = {conversation["id"]: conversation for conversation in exported["conversations"]}
    assert set(conversations) >= {item["id"] for item in made}
    assert [m["content"] for m in conversations[made[0]["id"]]["messages"]] == ["m0", "m1", "m2", "m3", "m4"]
    assert [m["seq"] for m in conversations[made[0]["id"]]["messages"]] == [1, 2, 3, 4, 5]


async def test_an_export_has_more_than_one_page_of_each(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    user_id = headers["X-User-Id"]
    made = (await client.post("/conversations", headers=headers, json={"title": "t"})).json()["id"]
    old = await stores.mongodb.database.conversations.find_one({"_id": made})
    assert old
    await stores.mongodb.database.conversations.insert_many([{**old, "_id": str(uuid.uuid4())} for _ in range(1100)])
    message = {"role": "user", "content": "x", "metadata": {}, "timestamp": old["created_at"]}
    await stores.mongodb.database.messages.insert_many(
        [{"_id": f"{made}/{i}", "id": str(i), "conversation_id": made, "seq": i, **message} for i in range(1, 1201)]
    )
    activity = {"user_id": user_id, "action": "signed_in", "at": old["created_at"]}
    await stores.mongodb.database.activity.insert_many([{"_id": str(uuid.uuid4()), **activity} for _ in range(1000)])
    await add_orders(stores, user_id, (await new_course(client, await register_admin(client, stores)))["id"], 350)
    exported = (await client.get("/users/me/export", headers=headers)).json()
    assert len(exported["orders"]) == len({order["id"] for order in exported["orders"]}) == 350
    assert len({conversation["id"] for conversation in exported["conversations"]}) == 1102
    assert len({item["id"] for item in exported["activity"]}) == 1003
    [long] = [conversation for conversation in exported["conversations"] if conversation["messages"]]
    assert [message["seq"] for message in long["messages"]] == list(range(1, 1201))


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


@pytest.fixture
def body() -> dict[str, Any]:
    return account()


async def test_an_erased_user_is_gone_and_the_name_is_free(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await client.post("/users/register", json=body)
    headers = await sign_in(client, body["username"], body["password"])
    elsewhere = await sign_in(client, body["username"], body["password"])
    me = (await client.get("/users/me", headers=headers)).json()["id"]
    assert (await client.delete("/users/me", headers=headers)).status_code == 202
    for who in (headers, elsewhere):
        assert (await client.get("/users/me", headers=who)).status_code == 401
    form = {"username": body["username"], "password": body["password"]}
    assert (await client.post("/auth/token", data=form)).status_code == 401
    stranger = await register(client)
    assert (await client.get(f"/users/{me}", headers=stranger)).status_code == 404
    assert (await client.post("/users/register", json=body)).status_code == 201


KEPT = {"postgresql users", "postgresql orders", "postgresql points_ledger"}


@pytest.fixture
async def quick(servers: Servers) -> AsyncIterator[Settings]:
    """Databases of its own: elsewhere other tests' erasures are owed for a minute."""
    async with fresh_databases(servers, purge_seconds=1.0, order_deadline=3, effects_deadline=3) as settings:
        yield settings


async def test_after_the_second_pass_only_the_id_and_the_time_are_left(quick: Settings, body: dict[str, Any]) -> None:
    async with open_stores(quick) as stores:
        app = create_app(quick, stores)
        async with client_of(app) as client:
            user_id, texts = await busy_user(client, stores, body)

            async def only_what_is_kept_is_left() -> bool:
                return set(await traces(stores, user_id, *texts)) == KEPT

            await until(only_what_is_kept_is_left, 20)
        [row] = await query(stores, "SELECT * FROM users WHERE id = :id", id=user_id)
        assert (row.username, row.email, row.password_hash) == (None, None, None)
        assert row.erased_at
        assert await traces(stores, *texts) == []


async def busy_user(client: httpx.AsyncClient, stores: Stores, body: dict[str, Any]) -> tuple[str, list[str]]:
    """Register, leave a trace everywhere, and erase. Returns the id, and the texts that must be gone."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    await client.post("/users/register", headers=key, json=body)
    headers = await sign_in(client, body["username"], body["password"])
    course = await new_course(client, await register_admin(client, stores))
    placed = await client.post("/orders", headers=headers | key, json={"course_id": course["id"]})
    assert placed.json()["status"] == "confirmed"
    me = (await client.get("/users/me", headers=headers)).json()
    await client.patch("/users/me", headers=headers, json={"bio": f"bio of {body['username']}"})
    made = (await client.post("/conversations", headers=headers, json={"title": f"by {me['id']}"})).json()["id"]
    await client.post(f"/conversations/{made}/messages", headers=headers, json={"content": f"I am {me['id']}"})
    assert (await client.delete("/users/me", headers=headers)).status_code == 202
    return me["id"], [body["username"], body["email"], made, key["Idempotency-Key"]]
