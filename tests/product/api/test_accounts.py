"""Sessions that their user sees and ends, what asks for a recent sign-in, and what admins do to accounts."""

import uuid
from typing import Any

import httpx
import pytest

from tests.product.people import WRONG, account, register, register_admin, sign_in
from tristore.stores.stores import Stores
from tristore.testing.outbox import query

PASSWORD = account()["password"]


async def status(client: httpx.AsyncClient, *sessions: dict[str, str]) -> list[int]:
    return [(await client.get("/users/me", headers=headers)).status_code for headers in sessions]


async def sessions_of(client: httpx.AsyncClient, headers: dict[str, str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("/auth/sessions", headers=headers)).json()["items"]
    return items


async def twice(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """An account, and two sessions of it."""
    body = account()
    body["id"] = (await client.post("/users/register", json=body)).json()["user_id"]
    first, second = [await sign_in(client, body["username"], PASSWORD) for _ in range(2)]
    return body, first, second


async def test_a_session_is_shown_as_device_and_client_named_it(client: httpx.AsyncClient) -> None:
    body = account()
    await client.post("/users/register", json=body)
    form = {"username": body["username"], "password": PASSWORD, "device": "Ana's \U0001f4f1"}
    agent = [(b"User-Agent", b"Mozilla/5.0 " + b"x" * 300)]
    token = (await client.post("/auth/token", data=form, headers=agent)).json()["access_token"]
    [shown] = await sessions_of(client, {"Authorization": f"Bearer {token}"})
    assert (shown["device"], shown["client"]) == ("Ana's \U0001f4f1", f"Mozilla/5.0 {'x' * 188}")


async def test_one_session_is_ended_and_no_other(client: httpx.AsyncClient) -> None:
    _, first, second = await twice(client)
    newest, oldest = await sessions_of(client, second)
    assert (newest["current"], oldest["current"]) == (True, False)
    path = f"/auth/sessions/{oldest['id']}"
    stranger = await register(client)
    assert (await client.delete(path, headers=stranger)).status_code == 404
    assert await status(client, first, second) == [200, 200]
    assert (await client.delete(path, headers=second)).status_code == 204
    assert await status(client, first, second) == [401, 200]
    assert (await client.delete(path, headers=second)).status_code == 204  # asked again, tell everybody again
    assert (await client.delete(f"/auth/sessions/{uuid.uuid4()}", headers=second)).status_code == 404


async def test_all_other_sessions_are_ended(client: httpx.AsyncClient) -> None:
    _, first, second = await twice(client)
    assert (await client.post("/auth/logout-others", headers=second)).status_code == 204
    assert await status(client, first, second) == [401, 200]


async def pass_minutes(stores: Stores, user_id: str) -> None:
    """As if everything had been six minutes earlier."""
    earlier = ", ".join(f"{column} = {column} - interval '6 minutes'" for column in ("created_at", "confirmed_at"))
    await query(stores, f"UPDATE sessions SET {earlier} WHERE user_id = :id", id=user_id)


GUARDED = [
    ("PATCH", "/users/me", {"username": "another_name"}),
    ("PATCH", "/users/me", {"email": "another@example.com", "bio": "b"}),
    ("PUT", "/users/{user_id}/role", {"role": "learner"}),
    ("POST", "/auth/logout-others", None),
    ("DELETE", "/auth/sessions/{session_id}", None),
    ("DELETE", "/users/me", None),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), GUARDED, ids=["name", "address", "role", "others", "session", "erasure"]
)
async def test_what_an_account_hangs_on_asks_for_a_recent_sign_in(
    client: httpx.AsyncClient, stores: Stores, method: str, path: str, body: Any
) -> None:
    headers, other = await register_admin(client, stores), await register(client)
    name = (await client.get("/users/me", headers=headers)).json()["username"]
    await sign_in(client, name, PASSWORD)
    [elsewhere] = [session["id"] for session in await sessions_of(client, headers) if not session["current"]]
    target = path.format(user_id=other["X-User-Id"], session_id=elsewhere)
    if body and "username" in body:
        body = {"username": f"n_{uuid.uuid4().hex[:12]}"}
    elif body and "email" in body:
        body = body | {"email": f"{uuid.uuid4().hex}@example.com"}

    async def asked() -> httpx.Response:
        return await client.request(method, target, headers=headers, json=body)

    await pass_minutes(stores, headers["X-User-Id"])
    refused = await asked()
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/sign-in-again")
    assert (await client.patch("/users/me", headers=headers, json={"bio": "as ever"})).status_code == 200
    wrong = await client.post("/auth/confirm-password", headers=headers, json={"password": WRONG})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "password")
    assert (await asked()).status_code == 403
    shown = await client.post("/auth/confirm-password", headers=headers, json={"password": PASSWORD})
    assert shown.status_code == 204
    if path != "/users/me" or method != "DELETE":
        assert (await asked()).is_success
        await pass_minutes(stores, headers["X-User-Id"])
        assert (await asked()).status_code == 403
    else:
        assert (await asked()).status_code == 202


async def test_a_password_that_is_shown_counts_for_its_session_alone(client: httpx.AsyncClient, stores: Stores) -> None:
    body, first, second = await twice(client)
    await pass_minutes(stores, body["id"])
    await client.post("/auth/confirm-password", headers=first, json={"password": PASSWORD})
    name = {"username": f"n_{uuid.uuid4().hex[:12]}"}
    assert (await client.patch("/users/me", headers=second, json=name)).status_code == 403
    assert (await client.patch("/users/me", headers=first, json=name)).status_code == 200


async def test_who_is_disabled_is_out_and_stays_out_until_enabled(client: httpx.AsyncClient, stores: Stores) -> None:
    admin = await register_admin(client, stores)
    body, first, second = await twice(client)
    path = f"/users/{body['id']}/disabled"
    assert (await client.put(path, headers=first, json={"disabled": True})).status_code == 403
    assert (await client.put(path, headers=admin, json={"disabled": True})).json()["disabled"] is True
    assert await status(client, first, second) == [401, 401]
    form = {"username": body["username"], "password": PASSWORD}
    refused = await client.post("/auth/token", data=form)
    assert (refused.status_code, refused.json()["detail"]) == (401, "This account is disabled.")
    guessed = await client.post("/auth/token", data=form | {"password": WRONG})
    assert guessed.json()["detail"] == "Username or password is wrong."
    assert (await client.put(path, headers=admin, json={"disabled": False})).json()["disabled"] is False
    back = await sign_in(client, body["username"], PASSWORD)
    acts = (await client.get("/users/me/activity", headers=back)).json()["items"]
    assert {"disabled", "enabled"} <= {act["action"] for act in acts if act["other_user_id"] == admin["X-User-Id"]}
    told = (await client.get("/users/me/activity", headers=admin)).json()["items"]
    assert {"disabled_user", "enabled_user"} <= {act["action"] for act in told if act["other_user_id"] == body["id"]}


async def test_a_new_database_has_no_account(alone: tuple[httpx.AsyncClient, Stores]) -> None:
    _, stores = alone
    assert await query(stores, "SELECT id FROM users") == []


async def test_the_last_admin_who_is_not_disabled_cannot_be(alone: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = alone
    one, two = await register_admin(client, stores), await register_admin(client, stores)
    path = "/users/{}/disabled"
    out = {"disabled": True}
    assert (await client.put(path.format(two["X-User-Id"]), headers=one, json=out)).status_code == 200
    refused = await client.put(path.format(one["X-User-Id"]), headers=one, json=out)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/last-admin")
    role = await client.put(f"/users/{one['X-User-Id']}/role", headers=one, json={"role": "learner"})
    assert role.status_code == 409


async def test_an_admin_ends_all_sessions_of_a_user(client: httpx.AsyncClient, stores: Stores) -> None:
    admin = await register_admin(client, stores)
    body, first, second = await twice(client)
    path = f"/users/{body['id']}/sessions"
    assert (await client.delete(path, headers=first)).status_code == 403
    assert (await client.delete(path, headers=admin)).status_code == 204
    assert await status(client, first, second) == [401, 401]
    await sign_in(client, body["username"], PASSWORD)


async def test_admins_find_users_by_how_name_or_address_begins(alone: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = alone
    admin = await register_admin(client, stores)
    names = [f"Zoe_{number}" for number in range(5)]
    for name in names:
        await register(client, username=name, email=f"{name}@example.com")
    await register(client, username="zoex", email="other%zoe_@example.com")

    async def found(**params: Any) -> dict[str, Any]:
        answer = await client.get("/users", headers=admin, params=params)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    pages, cursor = [], None
    while True:
        page = await found(search="ZOE_", limit=2, **({"cursor": cursor} if cursor else {}))
        pages.append([user["username"] for user in page["items"]])
        if not (cursor := page["next_cursor"]):
            break
    assert pages == [["Zoe_4", "Zoe_3"], ["Zoe_2", "Zoe_1"], ["Zoe_0"]]
    assert [user["username"] for user in (await found(search="other%"))["items"]] == ["zoex"]
    assert (await found(search="%"))["items"] == []
    assert len((await found())["items"]) == 7
    learner = await register(client)
    assert (await client.get("/users", headers=learner)).status_code == 403
    await client.delete("/users/me", headers=learner)
    assert len((await found())["items"]) == 7  # who is erased is nobody


@pytest.mark.parametrize("search", ["a b", "a\x00", "\n", "x" * 255])
async def test_what_no_name_begins_with_is_refused(
    client: httpx.AsyncClient, admin: dict[str, str], search: str
) -> None:
    answer = await client.get("/users", headers=admin, params={"search": search})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "search")
