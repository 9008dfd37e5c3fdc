"""Activity, export and erasure through the API."""

import uuid
from typing import Any

import httpx
import pytest

from tests.product.people import account, register, sign_in
from tristore.stores.stores import Stores
from tristore.testing.lab import until


async def until_told(client: httpx.AsyncClient, headers: dict[str, str], count: int) -> None:
    """Activity is owed, so it may come a moment later."""

    async def are_told() -> bool:
        page = (await client.get("/users/me/activity", headers=headers, params={"limit": 50})).json()
        return len(page["items"]) == count

    await until(are_told, 10)


async def test_activity_tells_what_the_user_did_newest_first(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    made = (await client.post("/conversations", headers=headers, json={"title": "t"})).json()["id"]
    await client.patch(f"/conversations/{made}", headers=headers, json={"title": "u"})
    await client.delete(f"/conversations/{made}", headers=headers)
    await client.patch("/users/me", headers=headers, json={"bio": "x"})
    await until_told(client, headers, 6)
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


async def test_exports_everything_as_one_document(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    made = [(await client.post("/conversations", headers=headers, json={"title": f"t{i}"})).json() for i in range(3)]
    for i in range(5):
        await client.post(f"/conversations/{made[0]['id']}/messages", headers=headers, json={"content": f"m{i}"})
    await until_told(client, headers, 5)
    answer = await client.get("/users/me/export", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    exported = answer.json()
    assert exported["profile"] == (await client.get("/users/me", headers=headers)).json()
    assert [session["current"] for session in exported["sessions"]] == [True]
    actions = {"registered", "signed_in", "conversation_started"}
    assert {item["action"] for item in exported["activity"]} == actions
    conversations = {conversation["id"]: conversation for conversation in exported["conversations"]}
    assert set(conversations) >= {item["id"] for item in made}
    assert [m["content"] for m in conversations[made[0]["id"]]["messages"]] == ["m0", "m1", "m2", "m3", "m4"]
    assert [m["seq"] for m in conversations[made[0]["id"]]["messages"]] == [1, 2, 3, 4, 5]


async def test_an_export_has_more_than_one_page_of_each(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    user_id = headers["X-User-Id"]
    made = (await client.post("/conversations", headers=headers, json={"title": "t"})).json()["id"]
    await until_told(client, headers, 3)
    old = await stores.mongodb.database.conversations.find_one({"_id": made})
    assert old
    await stores.mongodb.database.conversations.insert_many([{**old, "_id": str(uuid.uuid4())} for _ in range(1100)])
    message = {"role": "user", "content": "x", "metadata": {}, "timestamp": old["created_at"]}
    await stores.mongodb.database.messages.insert_many(
        [{"_id": f"{made}/{i}", "id": str(i), "conversation_id": made, "seq": i, **message} for i in range(1, 1201)]
    )
    activity = {"user_id": user_id, "action": "signed_in", "at": old["created_at"]}
    await stores.mongodb.database.activity.insert_many([{"_id": str(uuid.uuid4()), **activity} for _ in range(1000)])
    exported = (await client.get("/users/me/export", headers=headers)).json()
    assert len({conversation["id"] for conversation in exported["conversations"]}) == 1102
    assert len({item["id"] for item in exported["activity"]}) == 1003
    [long] = [conversation for conversation in exported["conversations"] if conversation["messages"]]
    assert [message["seq"] for message in long["messages"]] == list(range(1, 1201))


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
