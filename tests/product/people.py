"""Accounts and sessions that tests act with."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from sqlalchemy import text

from tristore.stores.stores import Stores

WRONG = "not the password"
PATIENCE = 10


def account(**changes: Any) -> dict[str, Any]:
    name = f"Ana_{secrets.token_hex(4)}"
    return {"username": name, "email": f"{name}@Example.com", "password": "correct horse 9"} | changes


async def register(client: httpx.AsyncClient, **changes: Any) -> dict[str, str]:
    """Register and sign in. Returns the headers to send; the user's id is among them for the tests only."""
    body = account(**changes)
    answer = await patiently(lambda: client.post("/users/register", json=body))
    if answer.status_code == 409:  # it was committed, and its answer came too late
        headers = await sign_in(client, body["username"], body["password"])
        return {"X-User-Id": (await client.get("/users/me", headers=headers)).json()["id"], **headers}
    assert answer.status_code == 201, answer.text
    return {"X-User-Id": answer.json()["user_id"], **await sign_in(client, body["username"], body["password"])}


async def patiently(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """As a client does whom a busy machine has answered 503: what a test only needs must not race the machine."""
    for _ in range(PATIENCE):
        answer = await send()
        if answer.status_code != 503:
            break
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    return answer


async def register_admin(client: httpx.AsyncClient, stores: Stores) -> dict[str, str]:
    headers = await register(client)
    await make_admin(stores, headers["X-User-Id"])
    return headers


async def make_admin(stores: Stores, user_id: str) -> None:
    async with stores.postgres.engine.begin() as connection:
        sql = "UPDATE users SET role = 'admin', version = version + 1 WHERE id = :id"
        await connection.execute(text(sql), {"id": user_id})
    await stores.redis.client.flushall()


async def sign_in(client: httpx.AsyncClient, username: str, password: str) -> dict[str, str]:
    answer = await patiently(lambda: client.post("/auth/token", data={"username": username, "password": password}))
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def attempt(client: httpx.AsyncClient, username: str, address: str = "") -> int:
    headers = {"X-Forwarded-For": address} if address else {}
    form = {"username": username, "password": WRONG}
    return (await client.post("/auth/token", data=form, headers=headers)).status_code
