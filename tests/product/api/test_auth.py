"""Signing in and out through the API, also as another process sees it."""

import asyncio
import gc
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from config import Settings
from main import create_app
from models.session import SessionList
from repositories.session_repo import SessionRepository
from tests.product.people import account, register, sign_in
from tristore.stores.stores import Stores, open_stores
from tristore.testing.outbox import query
from tristore.testing.stores import client_of


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A second process: it shares nothing with the first but the databases."""
    async with open_stores(settings) as stores, client_of(create_app(settings, stores)) as client:
        yield client


async def status(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    return (await client.get("/users/me", headers=headers)).status_code


async def end(other: httpx.AsyncClient, *sessions: dict[str, str]) -> None:
    """Wait until another process knows that they ended: for less than a near copy may live. Raises TimeoutError."""
    async with asyncio.timeout(0.5):
        while [await status(other, headers) for headers in sessions] != [401] * len(sessions):
            await asyncio.sleep(0.01)


@pytest.fixture
async def body(client: httpx.AsyncClient) -> dict[str, Any]:
    body = account()
    assert (await client.post("/users/register", json=body)).status_code == 201
    return body


@pytest.mark.parametrize("field", ["username", "email"])
async def test_signs_in_by_username_or_email_in_any_case(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post("/auth/token", data={"username": body[field].upper(), "password": body["password"]})
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 90 * 86_400)
    assert await status(client, {"Authorization": f"Bearer {token['access_token']}"}) == 200


async def test_an_unknown_user_and_a_wrong_password_are_told_the_same(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    wrong = await client.post("/auth/token", data={"username": body["username"], "password": "not this one"})
    unknown = await client.post("/auth/token", data={"username": "nobody-here", "password": "not this one"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["detail"] == unknown.json()["detail"]
    assert wrong.headers["WWW-Authenticate"] == "Bearer"


async def test_only_a_hash_of_the_token_is_stored(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    token = headers["Authorization"].split()[1]
    async with stores.postgres.engine.connect() as connection:
        rows = await connection.scalars(text("SELECT token_hash FROM sessions"))
        assert all(len(kept) == 32 and token.encode() not in kept for kept in rows)
    redis = stores.redis.client
    async for key in redis.scan_iter(_type="zset"):
        assert token not in repr((key, await redis.zrange(key, 0, -1)))
    async for key in redis.scan_iter(_type="string"):
        assert token not in repr((key, await redis.get(key)))
    assert {await redis.type(key) async for key in redis.scan_iter()} <= {b"zset", b"string", b"none"}


async def test_a_sign_in_leaves_no_garbage_to_collect(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """In the middle of many, collecting it would stop the event loop. The client's own garbage is subtracted."""

    async def left_by(request: Callable[[], Awaitable[object]]) -> int:
        await request()  # what is compiled at first is garbage once
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await request()
            return gc.collect()
        finally:
            gc.enable()

    of_the_client = await left_by(lambda: client.get("/health/live"))
    of_sign_ins = await left_by(lambda: sign_in(client, body["username"], body["password"]))
    assert of_sign_ins - of_the_client < 50


@pytest.mark.parametrize(
    "token", ["", "x", "Bearer", "é" * 43, "a" * 43, "never-issued-" + "0" * 30, "a" * 5000, "\x00" * 43]
)
async def test_a_token_that_is_not_one_is_refused(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.get("/users/me", headers=[(b"Authorization", b"Bearer " + token.encode())])
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_truncated_token_is_refused(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    assert await status(client, {"Authorization": headers["Authorization"][:-1]}) == 401


async def test_signing_out_holds_at_once_in_another_process(
    client: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    headers = await register(client)
    assert await status(other, headers) == 200
    assert (await client.post("/auth/logout", headers=headers)).status_code == 204
    assert await status(client, headers) == 401
    await end(other, headers)


async def test_signing_out_everywhere_ends_every_session(client: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    body = account()
    await client.post("/users/register", json=body)
    sessions = [await sign_in(client, body["username"], body["password"]) for _ in range(3)]
    stranger = await register(client)
    assert [await status(other, headers) for headers in sessions] == [200] * 3
    listed = (await client.get("/auth/sessions", headers=sessions[0])).json()["items"]
    assert [session["current"] for session in listed] == [False, False, True]
    assert (await client.post("/auth/logout-all", headers=sessions[0])).status_code == 204
    await end(other, *sessions)
    assert await status(other, stranger) == 200


async def test_lists_sessions_as_documented_and_long_lists_hold_up_nobody(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    headers = await register(client)

    plain = headers | {"Accept-Encoding": "identity"}  # compressing is done in a thread

    async def least_seconds() -> float:
        """Of this process, for a list, at best."""
        seconds = []
        for _ in range(20):
            started = time.process_time()
            assert (await client.get("/auth/sessions", headers=plain)).status_code == 200
            seconds.append(time.process_time() - started)
        return min(seconds)

    short = await least_seconds()
    many = "SELECT gen_random_uuid(), :id, CAST(CAST(gen_random_uuid() AS text) AS bytea), now() + interval '1h'"
    sql = f"INSERT INTO sessions (id, user_id, token_hash, expires_at) {many} FROM generate_series(1, 1500)"
    await query(stores, sql, id=headers["X-User-Id"])
    assert await least_seconds() < 4 * short
    listed = await client.get("/auth/sessions", headers=headers)
    parsed = SessionList.model_validate_json(listed.content)
    assert json.loads(parsed.model_dump_json()) == listed.json()
    assert [session.current for session in parsed.items].count(True) == 1
    assert len(parsed.items) == 1501
    assert parsed.items == sorted(parsed.items, key=lambda session: session.id, reverse=True)


async def test_changing_the_password_signs_out_the_others_only(
    client: httpx.AsyncClient, other: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    mine, elsewhere = [await sign_in(client, body["username"], body["password"]) for _ in range(2)]
    assert await status(other, elsewhere) == 200
    change = {"current_password": body["password"], "new_password": "battery staple 7"}
    assert (await client.post("/users/me/password", headers=mine, json=change)).status_code == 204
    await end(other, elsewhere)
    assert await status(other, mine) == 200
    old = await client.post("/auth/token", data={"username": body["username"], "password": body["password"]})
    assert old.status_code == 401
    await sign_in(client, body["username"], "battery staple 7")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"current_password": "not this one", "new_password": "battery staple 7"}, "current_password"),
        ({"current_password": "correct horse 9", "new_password": "password123"}, "new_password"),
        ({"current_password": "correct horse 9", "new_password": "short"}, "new_password"),
        ({"current_password": "correct horse 9", "new_password": "x" * 129}, "new_password"),
    ],
)
async def test_a_bad_password_change_names_its_field(
    client: httpx.AsyncClient, change: dict[str, str], field: str
) -> None:
    headers = await register(client)
    answer = await client.post("/users/me/password", headers=headers, json=change)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert await status(client, headers) == 200


async def test_a_revocation_covers_what_has_ended_since_copies_were_made(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    """The first one may have told nobody. What ended earlier than that costs nothing."""
    sessions = SessionRepository(stores.postgres, timedelta(days=1), copies_last=timedelta(seconds=30))
    user_id = uuid.UUID((await register(client))["X-User-Id"])
    ended = "SELECT clock_timestamp() - revoked_at AS ago FROM sessions WHERE user_id = :id"

    async def revoke() -> int:
        async with AsyncSession(stores.postgres.engine) as session, session.begin():
            return len(await sessions.revoke(session, user_id))

    for seconds, covered in ((0, 1), (20, 1), (20, 0)):
        sooner = "UPDATE sessions SET revoked_at = revoked_at - make_interval(secs => :s) WHERE user_id = :id"
        await query(stores, sooner, s=seconds, id=user_id)
        assert await revoke() == covered
    assert (await query(stores, ended, id=user_id))[0].ago > timedelta(seconds=40)


async def test_losing_redis_signs_nobody_out_and_brings_nobody_back(client: httpx.AsyncClient, stores: Stores) -> None:
    here, gone = await register(client), await register(client)
    await client.post("/auth/logout", headers=gone)
    await stores.redis.client.flushall()
    assert (await status(client, here), await status(client, gone)) == (200, 401)


@pytest.mark.parametrize("column", ["expires_at", "last_seen_at"])
async def test_a_session_ends_with_its_time(client: httpx.AsyncClient, stores: Stores, column: str) -> None:
    headers = await register(client)
    async with stores.postgres.engine.begin() as connection:
        sql = f"UPDATE sessions SET {column} = now() - interval '15 days' WHERE user_id = :id"
        await connection.execute(text(sql), {"id": headers["X-User-Id"]})
    await stores.redis.client.flushall()
    assert await status(client, headers) == 401


async def test_use_is_noted_at_most_once_a_minute(client: httpx.AsyncClient, stores: Stores) -> None:
    async def seconds_since_seen_after_use(seconds: int) -> float:
        headers = await register(client)  # of somebody else each time: the near cache would answer the second use
        mine = {"id": headers["X-User-Id"]}
        async with stores.postgres.engine.begin() as connection:
            sql = f"UPDATE sessions SET last_seen_at = now() - interval '{seconds} seconds' WHERE user_id = :id"
            await connection.execute(text(sql), mine)
        await stores.redis.client.flushall()
        assert await status(client, headers) == 200
        async with stores.postgres.engine.begin() as connection:
            sql = "SELECT extract(epoch FROM now() - last_seen_at) FROM sessions WHERE user_id = :id"
            return float(await connection.scalar(text(sql), mine) or 0)

    assert await seconds_since_seen_after_use(50) >= 50
    assert await seconds_since_seen_after_use(70) < 10


@pytest.mark.parametrize("password", ["Password123", "ChatLingo123"])
async def test_a_common_password_is_refused(client: httpx.AsyncClient, password: str) -> None:
    answer = await client.post("/users/register", json=account(password=password))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "password")


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("bad", ["\x00", "x" * 300, "\x00" * 2000])
async def test_a_bad_sign_in_names_its_field(client: httpx.AsyncClient, field: str, bad: str) -> None:
    answer = await client.post("/auth/token", data={"username": "ana", "password": "correct horse 9", field: bad})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_the_near_cache_answers_unless_it_is_off(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        services = []
        clients = []
        for is_on in (False, True):
            stores = await stack.enter_async_context(open_stores(settings))
            app = create_app(settings.model_copy(update={"near_cache": is_on}), stores)
            clients.append(await stack.enter_async_context(client_of(app)))
            services.append(app.state.services)
        headers = await register(clients[0])
        async with asyncio.timeout(10):
            while services[1].cache.counts["near"] < 10:
                assert [await status(client, headers) for client in clients] == [200, 200]
        assert services[0].cache.counts["near"] == 0
        assert services[0].cache.counts["hit"] >= 10
