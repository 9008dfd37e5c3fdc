"""What concerns security is logged as one event each: who, on whom, from where, with which session, how it ended."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from commands.users import create_admin
from config import Settings
from main import create_app
from routers import all_routers
from tests.product.people import WRONG, account, attempt, register, register_admin, sign_in
from tristore.http.security_log import event_of
from tristore.models import new_id
from tristore.stores.stores import Stores
from tristore.testing.outbox import query
from tristore.testing.stores import client_of
from tristore.tokens import hash_of, new_token

EVENTS = {
    "POST /auth/token": "sign_in",
    "POST /auth/logout": "sign_out",
    "POST /auth/logout-all": "sign_out_everywhere",
    "POST /auth/logout-others": "sign_out_others",
    "POST /auth/confirm-password": "password_confirmation",
    "DELETE /auth/sessions/{session_id}": "session_end",
    "POST /auth/password-reset": "password_reset_request",
    "POST /auth/password-reset/confirm": "password_reset",
    "POST /pages/reset-password": "password_reset",
    "POST /auth/email-verification": "email_verification_request",
    "POST /auth/email-verification/confirm": "email_verification",
    "POST /pages/verify-email": "email_verification",
    "POST /users/register": "registration",
    "PATCH /users/me": "profile_change",
    "POST /users/me/password": "password_change",
    "DELETE /users/me": "erasure",
    "GET /users/me/export": "export",
    "PUT /users/{user_id}/role": "role_change",
    "PUT /users/{user_id}/disabled": "disabling",
    "DELETE /users/{user_id}/sessions": "sessions_end",
}
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
Event = dict[str, Any]
Logged = list[MutableMapping[str, Any]]


@pytest.fixture
def logged() -> Iterator[Logged]:
    with capture_logs([merge_contextvars]) as logs:
        yield logs


def newest(logged: Logged) -> Event:
    """The last request's one event, which is taken away with all before it."""
    *_, event = [log for log in logged if "outcome" in log]
    logged.clear()
    return dict(event)


def test_each_of_these_routes_has_its_event_and_no_change_of_an_account_is_without(served: FastAPI) -> None:
    routes = [route for router in all_routers() for route in router.routes if isinstance(route, APIRoute)]
    events = {f"{method} {route.path}": event_of(route.endpoint) for route in routes for method in route.methods or ()}
    assert {name: event for name, event in events.items() if event} == EVENTS
    without = [name for name in events.keys() - EVENTS.keys() if name.split()[0] in CHANGES]
    assert without
    assert not [name for name in without if name.split()[1].startswith(("/auth", "/users"))]


async def test_a_sign_in_tells_whose_account_it_was_and_how_it_ended(client: httpx.AsyncClient, logged: Logged) -> None:
    body = account()
    user = (await client.post("/users/register", json=body)).json()["user_id"]
    registered = newest(logged)
    assert (registered["event"], registered["outcome"], registered["user"]) == ("registration", "done", user)
    assert await attempt(client, body["username"]) == 401
    wrong = newest(logged)
    assert wrong == wrong | {
        "event": "sign_in",
        "outcome": "refused",
        "status": 401,
        "method": "POST",
        "route": "/auth/token",
        "address": "127.0.0.1",
        "user": user,
        "log_level": "info",
    }
    assert len(wrong["request_id"]) == 32
    assert "session" not in wrong
    headers = await sign_in(client, body["email"], body["password"])
    right = newest(logged)
    session = (await client.get("/auth/sessions", headers=headers)).json()["items"][0]["id"]
    assert right == right | {"event": "sign_in", "outcome": "done", "user": user, "session": session}
    assert await attempt(client, "nobody-at-all") == 401
    assert "user" not in newest(logged)
    assert (await client.post("/auth/token", data={})).status_code == 422
    unreadable = newest(logged)
    assert (unreadable["event"], unreadable["outcome"]) == ("sign_in", "refused")


async def test_what_is_changed_with_a_session_tells_which(client: httpx.AsyncClient, logged: Logged) -> None:
    headers = await register(client)
    [session] = (await client.get("/auth/sessions", headers=headers)).json()["items"]
    actor = {"actor": headers["X-User-Id"], "session": session["id"]}

    async def event_after(method: str, path: str, body: object = None) -> Event:
        logged.clear()
        assert (await client.request(method, path, headers=headers, json=body)).is_success
        return newest(logged)

    change = {"email": f"{headers['X-User-Id']}@example.org", "bio": "b"}
    changed = await event_after("PATCH", "/users/me", change)
    assert changed == changed | actor | {"event": "profile_change", "changed": ["bio", "email"]}
    assert change["email"] not in str(changed)
    passwords = {"current_password": account()["password"], "new_password": "battery staple 7"}
    for method, path, body, event in [
        ("POST", "/users/me/password", passwords, "password_change"),
        ("GET", "/users/me/export", None, "export"),
        ("POST", "/auth/logout-all", None, "sign_out_everywhere"),
    ]:
        told = await event_after(method, path, body)
        assert told == told | actor | {"event": event, "outcome": "done"}
    assert (await client.post("/auth/logout", headers=headers)).status_code == 401
    refused = newest(logged)
    assert (refused["event"], refused["outcome"], "actor" in refused) == ("sign_out", "refused", False)


async def test_who_ends_the_oldest_session_by_signing_in_is_told(
    settings: Settings, stores: Stores, logged: Logged
) -> None:
    body = account()
    async with client_of(create_app(settings.model_copy(update={"sessions_per_user": 1}), stores)) as client:
        await client.post("/users/register", json=body)
        await sign_in(client, body["username"], body["password"])
        first = newest(logged)
        await sign_in(client, body["username"], body["password"])
        assert (first["ended_sessions"], newest(logged)["ended_sessions"]) == ([], [first["session"]])


async def test_a_role_is_changed_in_the_log_and_in_what_both_users_did(
    client: httpx.AsyncClient, stores: Stores, logged: Logged
) -> None:
    admin, learner = await register_admin(client, stores), await register(client)
    path, body = f"/users/{learner['X-User-Id']}/role", {"role": "admin"}
    assert (await client.put(path, headers=learner, json=body)).status_code == 403
    refused = newest(logged)
    assert (refused["event"], refused["outcome"], refused["actor"]) == ("role_change", "refused", learner["X-User-Id"])
    assert refused["user"] == learner["X-User-Id"]
    assert (await client.put("/users/no-id/role", headers=admin, json=body)).status_code == 422
    assert "user" not in newest(logged)
    assert (await client.put(path, headers=admin, json=body)).status_code == 200
    told = newest(logged)
    users = {"actor": admin["X-User-Id"], "user": learner["X-User-Id"]}
    assert told == told | users | {"event": "role_change", "outcome": "done", "role": "admin"}
    for whose, action, other in [(admin, "changed_role", learner), (learner, "role_changed", admin)]:
        newest_activity = (await client.get("/users/me/activity", headers=whose)).json()["items"][0]
        assert (newest_activity["action"], newest_activity["other_user_id"]) == (action, other["X-User-Id"])


@pytest.mark.parametrize(
    ("path", "purpose", "sent", "outcomes"),
    [
        ("/auth/password-reset/confirm", "reset", "new_password", ["refused", "done"]),
        ("/pages/reset-password", "reset", "password", ["refused", "done"]),
        ("/auth/email-verification/confirm", "verify", "", ["done"]),
        ("/pages/verify-email", "verify", "", ["done"]),
    ],
)
async def test_what_a_link_opens_tells_whose_account_it_was(
    client: httpx.AsyncClient, stores: Stores, logged: Logged, path: str, purpose: str, sent: str, outcomes: list[str]
) -> None:
    body, token = account(), new_token()
    user = (await client.post("/users/register", json=body)).json()["user_id"]
    link = "INSERT INTO email_links (owner_id, purpose, address, token_hash, expires_at)"
    values = {"id": user, "purpose": purpose, "address": body["email"].lower(), "hash": hash_of(token)}
    await query(stores, f"{link} VALUES (:id, :purpose, :address, :hash, now() + interval '1h')", **values)
    for password, outcome in zip(("password123", "battery staple 7")[-len(outcomes) :], outcomes, strict=True):
        form = {"token": token} | ({sent: password} if sent else {})
        await (client.post(path, data=form) if path.startswith("/pages") else client.post(path, json=form))
        told = newest(logged)
        assert (told["user"], told["outcome"]) == (user, outcome)


async def test_who_asks_for_a_new_password_is_told_of_the_account_that_it_is_for(
    client: httpx.AsyncClient, logged: Logged
) -> None:
    body = account()
    user = (await client.post("/users/register", json=body)).json()["user_id"]
    for address, whose in ((body["email"], user), ("nobody@example.com", None)):
        assert (await client.post("/auth/password-reset", json={"email": address})).status_code == 202
        assert newest(logged).get("user") == whose


async def test_a_route_without_an_event_tells_its_refusals_only(
    settings: Settings, stores: Stores, logged: Logged
) -> None:
    limited = settings.model_copy(update={"rate_limit_requests": "4/hour"})
    async with client_of(create_app(limited, stores)) as client:
        headers = await register(client)
        logged.clear()
        assert (await client.get("/users/me", headers=headers)).status_code == 200
        assert (await client.get(f"/conversations/{new_id()}", headers=headers)).status_code == 404
        assert not [log for log in logged if "outcome" in log]
        assert (await client.get("/users/me")).status_code == 401
        assert newest(logged)["event"] == "not_authenticated"
        course = {"course_id": str(new_id())}
        assert (await client.delete(f"/courses/{course['course_id']}", headers=headers)).status_code == 403
        forbidden = newest(logged)
        assert (forbidden["event"], forbidden["actor"]) == ("not_allowed", headers["X-User-Id"])
        await client.get("/users/me", headers=headers)
        assert (await client.get("/users/me", headers=headers)).status_code == 429
        limit = newest(logged)
        assert (limit["event"], limit["actor"]) == ("too_many_requests", headers["X-User-Id"])


async def test_no_password_no_token_and_no_name_is_in_an_event(client: httpx.AsyncClient, logged: Logged) -> None:
    body = account()
    await client.post("/users/register", json=body)
    headers = await sign_in(client, body["username"], body["password"])
    await attempt(client, body["email"])
    await client.get("/users/me", headers={"Authorization": "Bearer " + "t" * 43})
    told = str(logged)
    assert "sign_in" in told
    for secret in (body["password"], WRONG, body["username"], body["email"], headers["Authorization"][7:], "t" * 43):
        assert secret not in told


async def test_an_operator_who_makes_an_admin_is_logged(settings: Settings, logged: Logged) -> None:
    name = account()["username"]
    id_ = await to_thread.run_sync(create_admin, settings, name, f"{name}@example.com", "correct horse 9")
    event = {"event": "role_change", "outcome": "done", "actor": "operator", "user": str(id_), "role": "admin"}
    assert newest(logged) == event | {"log_level": "info"}
