"""A walk over all routes of the OpenAPI document, so that a new one cannot be forgotten."""

import secrets
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from models.course import EXAMPLE
from models.order import EXAMPLE as ORDER
from tests.product.people import account, register, register_admin, sign_in
from tests.product.things import new_course
from tristore.stores.stores import Stores

OPEN = {
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/health/startup"),
    ("post", "/users/register"),
    ("post", "/auth/token"),
    ("get", "/courses"),
    ("get", "/courses/{course_id}"),
}
FOR_EVERYBODY = {("get", "/users/{user_id}")}
"""Routes that name an object, and show a part of it to whoever is signed in."""
# A valid body for each route that takes one: what is refused then is refused for who asks.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("patch", "/users/me"): {"bio": "changed"},
    ("post", "/users/me/password"): {"current_password": "correct horse 9", "new_password": "battery staple 7"},
    ("put", "/users/{user_id}/role"): {"role": "admin"},
    ("post", "/conversations"): {"title": "mine"},
    ("patch", "/conversations/{conversation_id}"): {"title": "mine"},
    ("post", "/conversations/{conversation_id}/messages"): {"content": "not mine"},
    ("post", "/courses"): EXAMPLE,
    ("post", "/courses/batch"): {"courses": [EXAMPLE]},
    ("patch", "/courses/{course_id}"): {"title": "not mine"},
    ("post", "/orders"): ORDER,
}


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    document: dict[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        return self.method, self.path

    async def send(self, client: httpx.AsyncClient, headers: dict[str, str], ids: dict[str, str]) -> httpx.Response:
        body = about(ids, BODIES[self.name]) if "requestBody" in self.document else None
        return await client.request(self.method, self.path.format(**ids), headers=headers, json=body)


def about(ids: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """The body with these ids where it names an object."""
    return body | {name: ids[name] for name in body.keys() & ids.keys()}


async def secured(client: httpx.AsyncClient) -> list[Operation]:
    """All operations that are not open to everybody. Fails for one that should ask for a token and does not."""
    operations = operations_of((await client.get("/openapi.json")).json())
    for operation in operations:
        assert bool(operation.document.get("security")) == (operation.name not in OPEN), operation.name
    return [operation for operation in operations if operation.name not in OPEN]


def operations_of(document: dict[str, Any]) -> list[Operation]:
    return [
        Operation(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


async def stock(client: httpx.AsyncClient, headers: dict[str, str], admin: dict[str, str]) -> dict[str, str]:
    """Give a user one of everything, and an admin a course. Returns the ids as routes name them."""
    conversation = (await client.post("/conversations", headers=headers, json={"title": "private"})).json()
    await client.post(f"/conversations/{conversation['id']}/messages", headers=headers, json={"content": "secret"})
    course = await new_course(client, admin)
    order = (await client.post("/orders", headers=headers, json={"course_id": course["id"]})).json()
    made = {"conversation_id": conversation["id"], "course_id": course["id"], "order_id": order["id"]}
    return {"user_id": headers["X-User-Id"], **made}


async def stocked(client: httpx.AsyncClient, stores: Stores) -> dict[str, str]:
    """The ids of what a user owns, and of a course."""
    return await stock(client, await register(client), await register_admin(client, stores))


async def bad_token(client: httpx.AsyncClient, stores: Stores, kind: str) -> dict[str, str]:
    headers = await register(client)
    good = headers["Authorization"]
    if kind == "expired":
        async with stores.postgres.engine.begin() as connection:
            sql = "UPDATE sessions SET expires_at = now() - interval '1 second' WHERE user_id = :id"
            await connection.execute(text(sql), {"id": headers["X-User-Id"]})
        await stores.redis.client.flushall()
    elif kind == "revoked":
        await client.post("/auth/logout", headers=headers)
    return {
        "none": {},
        "garbled": {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"},
        "truncated": {"Authorization": good[:-1]},
        "of another scheme": {"Authorization": good.replace("Bearer", "Basic")},
        "expired": {"Authorization": good},
        "revoked": {"Authorization": good},
    }[kind]


@pytest.mark.parametrize("kind", ["none", "garbled", "truncated", "of another scheme", "expired", "revoked"])
async def test_without_a_good_token_every_route_answers_401(
    client: httpx.AsyncClient, stores: Stores, kind: str
) -> None:
    ids = await stocked(client, stores)
    before = await everything_of(stores, ids)
    headers = await bad_token(client, stores, kind)
    for operation in await secured(client):
        answer = await operation.send(client, headers, ids)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), operation.name
    assert await everything_of(stores, ids) == before


async def test_another_user_finds_nothing_and_changes_nothing(client: httpx.AsyncClient, stores: Stores) -> None:
    ids = await stocked(client, stores)
    before = await everything_of(stores, ids)
    stranger = account()
    await client.post("/users/register", json=stranger)
    tried = set()
    for operation in await secured(client):
        headers = await sign_in(client, stranger["username"], stranger["password"])  # some routes end the session
        answer = await operation.send(client, headers, ids)
        if "403" in operation.document["responses"]:
            assert answer.status_code == 403, operation.name
        elif operation.name in FOR_EVERYBODY:
            assert "email" not in answer.json()
        elif "{" in operation.path:
            assert answer.status_code == 404, operation.name
        else:  # it acts on the stranger's own
            assert answer.is_success, operation.name
        tried.add(answer.status_code)
        if operation.path == "/users/me/password":
            stranger["password"] = BODIES[operation.name]["new_password"]
        elif operation.name == ("delete", "/users/me"):
            stranger = account()
            await client.post("/users/register", json=stranger)
    assert tried >= {200, 201, 202, 204, 403, 404}
    assert await everything_of(stores, ids) == before


async def everything_of(stores: Stores, ids: dict[str, str]) -> list[Any]:
    """What the databases hold of a user, but for what reading may change, and all courses."""
    user_id = ids["user_id"]
    found: list[Any] = []
    async with stores.postgres.engine.connect() as connection:
        for sql in (
            "SELECT * FROM users WHERE id = :id",
            "SELECT * FROM profiles WHERE user_id = :id",
            "SELECT id, token_hash, expires_at, revoked_at FROM sessions WHERE user_id = :id",
            "SELECT * FROM orders WHERE user_id = :id",
            "SELECT * FROM points_ledger WHERE user_id = :id",
            "SELECT sagas.* FROM sagas JOIN orders USING (id) WHERE user_id = :id",
            "SELECT * FROM courses WHERE :id = :id ORDER BY id",
        ):
            rows = (await connection.execute(text(sql), {"id": user_id})).all()
            assert rows, sql
            found += rows
    database = stores.mongodb.database
    for collection in (database.conversations, database.activity):
        found += await collection.find({"user_id": user_id}).sort("_id", 1).to_list(100)
    messages = await database.messages.find({"conversation_id": ids["conversation_id"]}).to_list(100)
    assert messages
    return found + messages


async def test_an_admin_gives_and_takes_the_role(client: httpx.AsyncClient, stores: Stores) -> None:
    admin, ana = await register_admin(client, stores), await register(client)
    path = f"/users/{ana['X-User-Id']}/role"
    assert (await client.put(path, headers=ana, json={"role": "admin"})).status_code == 403
    assert (await client.put(path, headers=admin, json={"role": "admin"})).json()["role"] == "admin"
    theirs = f"/users/{admin['X-User-Id']}"
    assert "email" in (await client.get(theirs, headers=ana)).json()
    assert (await client.put(f"{theirs}/role", headers=ana, json={"role": "learner"})).json()["role"] == "learner"
    assert (await client.put(path, headers=admin, json={"role": "learner"})).status_code == 403
    assert (await client.put(path, headers=ana, json={"role": "owner"})).status_code == 422
