"""Repeated requests with an Idempotency-Key."""

import asyncio
import secrets
from collections import Counter

import httpx
import pytest
from sqlalchemy import text

from tests.product.people import account
from tests.product.things import count
from tristore.stores.stores import Stores


def key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(16)}


async def test_the_same_key_gets_the_same_answer_and_makes_one_user(client: httpx.AsyncClient, stores: Stores) -> None:
    headers, body = key(), account()
    first, second = [await client.post("/users/register", headers=headers, json=body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
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


async def test_another_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = key()
    assert (await client.post("/users/register", headers=headers, json=account())).status_code == 201
    answer = await client.post("/users/register", headers=headers, json=account())
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


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


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "ü"])
async def test_a_key_that_is_none_is_refused(client: httpx.AsyncClient, bad: str) -> None:
    answer = await client.post(
        "/users/register", headers=[(b"Idempotency-Key", bad.encode()), (b"X", b"y")], json=account()
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_no_hash_of_a_password_is_kept_with_the_key(client: httpx.AsyncClient) -> None:
    headers, body = key(), account()
    first = await client.post("/users/register", headers=headers, json=body)
    again = await client.post("/users/register", headers=headers, json=body | {"password": "another one 8"})
    assert again.json() == first.json()
