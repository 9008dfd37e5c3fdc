"""Repeated registrations with an Idempotency-Key."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from config import Settings
from main import create_app
from tests.product.keys import key
from tests.product.people import account, attempt
from tests.product.things import count
from tristore.stores.stores import Stores
from tristore.testing.stores import client_of


async def register(client: httpx.AsyncClient, headers: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    return await client.post("/users/register", headers=headers, json=body)


def assert_used(answer: httpx.Response) -> None:
    """In one wording, whatever differs."""
    said = [{"field": "Idempotency-Key", "message": "was already used for another request"}]
    assert (answer.status_code, answer.json()["errors"]) == (422, said)
    assert "Idempotency-Replayed" not in answer.headers


async def test_the_same_key_gets_the_same_answer_and_makes_one_user(client: httpx.AsyncClient, stores: Stores) -> None:
    headers, body = key(), account()
    first, second = [await client.post("/users/register", headers=headers, json=body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert [answer.headers.get("Idempotency-Replayed") for answer in (first, second)] == [None, "true"]
    sql = "SELECT count(*) FROM users WHERE username = :name"
    assert await count(stores, sql, name=body["username"]) == 1
    welcomes = stores.mongodb.database.conversations.count_documents({"user_id": first.json()["user_id"]})
    assert await welcomes == 1


async def test_fifty_at_once_make_one_user(client: httpx.AsyncClient, stores: Stores) -> None:
    headers, body = key(), account()
    sent = [client.post("/users/register", headers=headers, json=body) for _ in range(50)]
    answers = await asyncio.gather(*sent)
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert statuses[201] >= 1
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    refused = [answer for answer in answers if answer.status_code == 409]
    assert all("in progress" in answer.json()["detail"] and answer.headers["Retry-After"] for answer in refused)
    assert (await client.post("/users/register", headers=headers, json=body)).status_code == 201
    assert await count(stores, "SELECT count(*) FROM users WHERE username = :name", name=body["username"]) == 1


OTHERS: list[dict[str, Any]] = [
    {"password": "not this one"},
    {"username": "someone-else"},
    {"cefr_level": "C2"},
    {"cefr_level": "C2", "password": "not this one"},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
async def test_another_body_or_password_is_refused_in_the_same_words(
    client: httpx.AsyncClient, stores: Stores, other: dict[str, Any]
) -> None:
    headers, body = key(), account()
    assert (await register(client, headers, body)).status_code == 201
    before = await count(stores, "SELECT count(*) FROM users")
    assert_used(await register(client, headers, body | other))
    assert await count(stores, "SELECT count(*) FROM users") == before
    assert (await register(client, headers, body)).status_code == 201


async def test_strangers_who_make_up_the_same_key_do_not_meet(client: httpx.AsyncClient) -> None:
    headers, bodies = key(), [account(), account()]
    first = [await register(client, headers, body) for body in bodies]
    again = [await register(client, headers, body) for body in bodies]
    assert {answer.status_code for answer in first + again} == {201}
    assert [answer.json() for answer in first] == [answer.json() for answer in again]
    assert first[0].json() != first[1].json()


async def test_one_address_is_one_owner_however_it_is_written(client: httpx.AsyncClient) -> None:
    headers, body = key(), account()
    first = await register(client, headers, body)
    again = await register(client, headers, body | {"email": f" {body['email'].upper()} "})
    assert (again.status_code, again.json()) == (201, first.json())


async def test_a_guess_at_the_password_by_a_known_key_counts_as_a_sign_in(settings: Settings, stores: Stores) -> None:
    await stores.redis.client.flushall()
    limited = settings.model_copy(update={"rate_limit_sign_in_account": "3/minute"})
    async with client_of(create_app(limited, stores)) as client:
        headers, body = key(), account()
        assert (await register(client, headers, body)).status_code == 201  # makes one, and guesses nothing
        for _ in range(2):
            assert_used(await register(client, headers, body | {"password": "not this one"}))
        assert (await register(client, headers, body)).status_code == 201
        refused = await register(client, headers, body)
        assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (429, True)
        assert await attempt(client, body["email"]) == 429
        assert (await register(client, key(), account())).status_code == 201


async def test_the_password_that_holds_now_is_the_right_one(client: httpx.AsyncClient) -> None:
    headers, body = key(), account()
    first = await register(client, headers, body)
    form = {"username": body["username"], "password": body["password"]}
    token = (await client.post("/auth/token", data=form)).json()["access_token"]
    change = {"current_password": body["password"], "new_password": "battery staple 7"}
    signed_in = {"Authorization": f"Bearer {token}"}
    assert (await client.post("/users/me/password", headers=signed_in, json=change)).status_code == 204
    assert_used(await register(client, headers, body))
    again = await register(client, headers, body | {"password": "battery staple 7"})
    assert (again.status_code, again.json()) == (201, first.json())


async def test_after_the_erasure_a_key_is_nobodys(client: httpx.AsyncClient) -> None:
    headers, body = key(), account()
    first = await register(client, headers, body)
    form = {"username": body["username"], "password": body["password"]}
    token = (await client.post("/auth/token", data=form)).json()["access_token"]
    assert (await client.delete("/users/me", headers={"Authorization": f"Bearer {token}"})).status_code == 202
    second = await register(client, headers, body)
    assert second.status_code == 201
    assert second.json() != first.json()
    assert "Idempotency-Replayed" not in second.headers


async def test_what_failed_is_tried_again(client: httpx.AsyncClient) -> None:
    taken, headers = account(), key()
    await client.post("/users/register", json=taken)
    refused = await client.post("/users/register", headers=headers, json=account(username=taken["username"]))
    assert (refused.status_code, refused.json()["field"]) == (409, "username")
    assert (await client.post("/users/register", headers=headers, json=account())).status_code == 201


async def test_a_key_lives_a_day(client: httpx.AsyncClient, stores: Stores) -> None:
    headers, other = key(), key()
    for sent in (headers, other):
        await client.post("/users/register", headers=sent, json=account())
    async with stores.postgres.engine.begin() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'"))
    assert (await client.post("/users/register", headers=headers, json=account())).status_code == 201
    kept = "SELECT count(*) FROM idempotency_keys WHERE key = :key"
    assert await count(stores, kept, key=headers["Idempotency-Key"]) == 1
    assert await count(stores, kept, key=other["Idempotency-Key"]) == 0


@pytest.mark.parametrize("bad", ["", "x" * 256, "ü", "a\tb", '"a', '""', '"a\\b"', '"a"b"', f'"{"x" * 256}"'])
async def test_a_key_that_is_none_is_refused(client: httpx.AsyncClient, bad: str) -> None:
    answer = await client.post(
        "/users/register", headers=[(b"Idempotency-Key", bad.encode()), (b"X", b"y")], json=account()
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize("bare", ["abc", "a b", "x" * 255, "/?=;,", 'a"b', "a\\b"])
async def test_a_key_is_the_same_in_quotes(client: httpx.AsyncClient, bare: str) -> None:
    escaped = bare.replace("\\", "\\\\").replace('"', '\\"')
    body = account()
    first, second = [await register(client, {"Idempotency-Key": sent}, body) for sent in (bare, f'"{escaped}"')]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


async def test_a_key_on_two_lines_is_that_of_one(client: httpx.AsyncClient) -> None:
    lines, body = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], account()
    first = await client.post("/users/register", headers=lines, json=body)
    assert (await register(client, {"Idempotency-Key": "a, b"}, body)).json() == first.json()
    assert (await register(client, {"Idempotency-Key": "a"}, body)).status_code == 409
    quoted = [(name, f'"{key}"') for name, key in lines]
    assert (await client.post("/users/register", headers=quoted, json=body)).status_code == 422


async def test_nothing_is_kept_with_the_key_that_tells_of_the_password(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    kept = []
    for password in ("correct horse 9", "battery staple 7"):
        headers, body = key(), account(username="of-nobody", email="nobody@example.com", password=password)
        token = {"username": "of-nobody", "password": password}
        assert (await register(client, headers, body)).status_code == 201
        async with stores.postgres.engine.connect() as connection:
            sql = "SELECT scope, fingerprint FROM idempotency_keys WHERE key = :key"
            kept.append((await connection.execute(text(sql), {"key": headers["Idempotency-Key"]})).one())
        signed_in = (await client.post("/auth/token", data=token)).json()["access_token"]
        await client.delete("/users/me", headers={"Authorization": f"Bearer {signed_in}"})
    assert kept[0] == kept[1]
    assert "nobody@" not in kept[0].scope
