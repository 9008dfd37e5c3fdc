"""Rate limits, sizes of requests, and the headers of answers."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Response
from structlog.testing import capture_logs

from config import Settings
from main import create_app
from tests.product.people import WRONG, account, attempt, register, sign_in
from tristore.bounds.limits import network
from tristore.stores.stores import Stores
from tristore.testing.stores import client_of

Limited = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def limited(settings: Settings, stores: Stores) -> Limited:
    @asynccontextmanager
    async def open_it(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        await stores.redis.client.flushall()
        async with client_of(create_app(settings.model_copy(update=changes), stores)) as client:
            yield client

    return open_it


def assert_refused(answer: httpx.Response, longest: int) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert 1 <= int(answer.headers["Retry-After"]) <= longest


async def test_guessing_one_account_is_limited_by_address_and_locks_nobody_else_out(limited: Limited) -> None:
    async with limited(rate_limit_sign_in_account="3/minute", trusted_proxies=["127.0.0.0/8"]) as client:
        body = account()
        await client.post("/users/register", json=body)
        name = body["username"]
        assert [await attempt(client, name, "203.0.113.7") for _ in range(4)] == [401, 401, 401, 429]
        assert await attempt(client, name.upper(), "203.0.113.7") == 429
        assert await attempt(client, "somebody-else", "203.0.113.7") == 401
        good = {"username": name, "password": body["password"]}
        theirs = await client.post("/auth/token", data=good, headers={"X-Forwarded-For": "203.0.113.8"})
        assert theirs.status_code == 200


async def test_guessing_many_accounts_is_limited_by_address(limited: Limited) -> None:
    async with limited(rate_limit_sign_in_address="3/minute") as client:
        assert [await attempt(client, f"user-{i}") for i in range(4)] == [401, 401, 401, 429]
        form = {"username": "x", "password": WRONG}
        assert_refused(await client.post("/auth/token", data=form), 60)


async def test_the_limits_hold_for_all_processes_together(limited: Limited, settings: Settings, stores: Stores) -> None:
    limit = {"rate_limit_sign_in_address": "3/minute"}
    async with limited(**limit) as one, client_of(create_app(settings.model_copy(update=limit), stores)) as two:
        assert [await attempt(client, "x") for client in (one, two, one, two, one)] == [401, 401, 401, 429, 429]


async def test_an_address_that_no_trusted_proxy_vouches_for_is_not_believed(limited: Limited) -> None:
    async with limited(rate_limit_sign_in_address="1/minute", trusted_proxies=["10.0.0.1"]) as client:
        assert [await attempt(client, "x", f"203.0.113.{i}") for i in range(2)] == [401, 429]


async def test_registration_is_limited(limited: Limited) -> None:
    async with limited(rate_limit_registration="2/hour") as client:
        answers = [await client.post("/users/register", json=account()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert_refused(answers[-1], 3600)


async def test_each_user_is_limited_alone(limited: Limited) -> None:
    async with limited(rate_limit_requests="2/minute") as client:
        ana, ben = await register(client), await register(client)
        answers = [await client.get("/users/me", headers=ana) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert_refused(answers[-1], 60)
        assert (await client.get("/users/me", headers=ben)).status_code == 200


async def test_guessing_the_current_password_is_limited(limited: Limited) -> None:
    async with limited(rate_limit_sign_in_account="3/minute") as client:
        body = account()
        await client.post("/users/register", json=body)
        headers = await sign_in(client, body["username"], body["password"])
        change = {"current_password": WRONG, "new_password": "battery staple 7"}
        answers = [await client.post("/users/me/password", headers=headers, json=change) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [422, 422, 429]


async def test_a_name_and_an_email_of_one_account_are_counted_as_one(limited: Limited) -> None:
    async with limited(rate_limit_sign_in_account="3/minute") as client:
        body = account()
        await client.post("/users/register", json=body)
        names = [body["username"], body["email"], body["username"].upper(), body["email"]]
        assert [await attempt(client, name) for name in names] == [401, 401, 401, 429]


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"username": "x"}},
        {"data": {"username": "x" * 5000, "password": "y"}},
        {"json": {"username": "x", "password": "y"}},
        {"content": b"\xff\x00", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"params": {"x": "y"}, "data": {"username": "x", "password": "y"}},
    ],
)
async def test_a_sign_in_that_cannot_be_read_is_counted(limited: Limited, sent: dict[str, Any]) -> None:
    async with limited(rate_limit_sign_in_address="2/minute") as client:
        answers = [(await client.post("/auth/token", **sent)).status_code for _ in range(3)]
        assert answers[0] in {415, 422}
        assert answers[1:] == [answers[0], 429]


async def test_strangers_to_an_account_are_slowed_down_together_and_its_owner_is_not(limited: Limited) -> None:
    changes = {"rate_limit_sign_in_strangers": "3/hour", "trusted_proxies": ["127.0.0.0/8"]}
    async with limited(**changes) as client:
        body = account()
        await client.post("/users/register", json=body)
        good = {"username": body["email"], "password": body["password"]}

        async def owner(address: str) -> int:
            return (await client.post("/auth/token", data=good, headers={"X-Forwarded-For": address})).status_code

        assert await owner("203.0.113.1") == 200
        guesses = [await attempt(client, body["username"], f"198.51.100.{i}") for i in range(4)]
        assert guesses == [401, 401, 429, 429]
        assert [await owner("203.0.113.1"), await owner("203.0.113.2")] == [200, 429]


ANONYMOUS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "courses": ("GET", "/courses", {}, 200),
    "a course": ("GET", f"/courses/{uuid.uuid4()}", {}, 404),
    "health": ("GET", "/health", {}, 200),
    "a registration that cannot be read": ("POST", "/users/register", {"content": b"{"}, 415),
    "a sign-in that cannot be read": ("POST", "/auth/token", {"content": b"{"}, 415),
    "no token": ("GET", "/users/me", {}, 401),
    "half a token": ("GET", "/users/me", {"headers": {"Authorization": "Bearer x"}}, 401),
    "a token that was made up": ("GET", "/conversations", {"headers": {"Authorization": f"Bearer {'x' * 43}"}}, 401),
    "the same, with a body": ("POST", "/conversations", {"json": {}}, 401),
}


@pytest.mark.parametrize("what", ANONYMOUS)
async def test_nobody_is_counted_by_address(limited: Limited, what: str) -> None:
    """Before the body is read: the last is not an error of what was sent."""
    method, path, sent, status = ANONYMOUS[what]
    async with limited(rate_limit_anonymous="2/minute") as client:
        answers = [await client.request(method, path, **sent) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [status, status, 429]
        assert_refused(answers[-1], 60)
        probes = [(await client.get(f"/health/{probe}")).status_code for probe in ("live", "ready", "startup")]
        assert probes == [200, 200, 200]


async def test_users_are_not_counted_by_address(limited: Limited) -> None:
    async with limited(rate_limit_anonymous="2/minute") as client:
        headers = await register(client)
        assert [(await client.get("/users/me", headers=headers)).status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("change", [{"username": "taken"}, {"email": "taken@example.com"}])
async def test_asking_by_a_change_whether_a_name_is_taken_counts_as_a_registration(
    limited: Limited, change: dict[str, str]
) -> None:
    async with limited(rate_limit_registration="3/hour") as client:
        headers = await register(client)
        answers = [await client.patch("/users/me", headers=headers, json=change) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (await client.patch("/users/me", headers=headers, json={"bio": "x"})).status_code == 200


async def test_whoever_has_a_large_network_has_not_as_many_limits(limited: Limited) -> None:
    changes = {"rate_limit_registration": "1/hour", "trusted_proxies": ["127.0.0.0/8"]}
    async with limited(**changes) as client:

        async def is_let_in(address: str) -> bool:
            answer = await client.post("/users/register", json=account(), headers={"X-Forwarded-For": address})
            return answer.status_code == 201

        assert sum([await is_let_in(f"2001:db8:1:{i:x}::1") for i in range(6)]) == 4
        assert sum([await is_let_in(f"2001:db8:1:{i:x}00::1") for i in range(1, 18)]) == 12
        assert await is_let_in("2001:db8:2::1")


async def test_whoever_is_no_trusted_proxy_and_speaks_for_others_is_warned_of_once(
    limited: Limited,
) -> None:
    with capture_logs() as logs:
        async with limited(trusted_proxies=["10.0.0.1"]) as client:
            for headers in ({}, {"X-Forwarded-For": "203.0.113.1"}, {"Forwarded": "for=203.0.113.1"}):
                await client.get("/courses", headers=headers)
    warnings = [log for log in logs if log["event"] == "forwarded_headers_not_believed"]
    assert [(log["peer"], "TRUSTED_PROXIES" in log["cure"]) for log in warnings] == [("127.0.0.1", True)]


async def test_no_name_or_address_outlives_its_window_in_redis(limited: Limited, stores: Stores) -> None:
    async with limited(rate_limit_sign_in_account="3/minute", rate_limit_sign_in_address="3/minute") as client:
        await attempt(client, "ana@example.com")
        keys = [key async for key in stores.redis.client.scan_iter(match="limits*")]
        assert len(keys) == 2
        assert not [key for key in keys if b"ana" in key]
        assert all([0 < await stores.redis.client.ttl(key) <= 60 for key in keys])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 100, "x" * 64),
    ],
)
def test_an_address_stands_for_its_subscriber(address: str, expected: str) -> None:
    assert network(address) == expected


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/users/register", "/auth/token", "/conversations"])
async def test_a_body_that_is_too_large_is_refused(limited: Limited, path: str, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async with limited(max_body_bytes=65_536) as client:
        media_type = "application/x-www-form-urlencoded" if path == "/auth/token" else "application/json"
        headers = await register(client) | {"Content-Type": media_type}
        answer = await client.post(path, headers=headers, content=chunks() if chunked else b"x" * 100_000)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "9" * 30, "²"])
async def test_a_content_length_that_is_none_is_refused(client: httpx.AsyncClient, length: str) -> None:
    headers = [(b"Content-Length", length.encode()), (b"Content-Type", b"application/json")]
    answer = await client.post("/users/register", headers=headers, content=b"{}")
    assert answer.status_code == 413


async def test_a_long_path_and_long_headers_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live", params={"x": "y" * 4096})).status_code == 414
    assert (await client.get("/health/live", headers={"X": "y" * 16_384})).status_code == 431
    assert (await client.get("/health/live", headers={"X": "y" * 8000})).status_code == 200


@pytest.mark.parametrize(("lines", "status"), [(400, 200), (500, 431)])
async def test_many_headers_are_refused_however_short(client: httpx.AsyncClient, lines: int, status: int) -> None:
    answer = await client.get("/health/live", headers=[("X", "y")] * lines)
    assert answer.status_code == status


async def test_metadata_is_limited_in_size(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    made = await client.post("/conversations", headers=headers, json={"title": "t"})
    path = f"/conversations/{made.json()['id']}/messages"
    for metadata, status in (({"a": ["x" * 100] * 100}, 201), ({"a": ["é" * 100] * 100}, 422)):
        answer = await client.post(path, headers=headers, json={"content": "x", "metadata": metadata})
        assert answer.status_code == status
    assert answer.json()["errors"][0]["field"] == "metadata"


@pytest.mark.parametrize("path", ["/users/me", "/health", "/nowhere"])
async def test_answers_are_kept_nowhere_and_tell_nothing_of_the_server(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers=await register(client))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


async def test_headers_of_a_route_are_kept_also_where_there_are_two_of_a_name(
    settings: Settings, stores: Stores
) -> None:
    app = create_app(settings, stores)

    @app.get("/cookies")
    async def set_two(response: Response) -> None:
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        response.headers["Cache-Control"] = "max-age=60"

    async with client_of(app) as client:
        answer = await client.get("/cookies")
    assert [cookie[:3] for cookie in answer.headers.get_list("Set-Cookie")] == ["a=1", "b=2"]
    assert answer.headers.get_list("Cache-Control") == ["max-age=60"]
