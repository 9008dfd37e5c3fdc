"""What tests of outages ask of an app: its health, its routes, its connections."""

from typing import Any, get_args

import httpx
from redis.asyncio import Redis

from config import Settings
from tests.product.people import account
from tests.under_test import Lab
from tristore.embedded.servers import Store
from tristore.errors import Reason
from tristore.testing.lab import timed, until

SLACK = 1
"""Seconds for a machine that does other things as well. An outage lasts longer."""
STATES = {"connected", *(f"error: {reason}" for reason in get_args(Reason))}


async def health(client: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer, seconds = await timed(client.get("/health"))
    assert seconds < Settings.model_fields["health_timeout"].default + SLACK
    body: dict[str, Any] = answer.json()
    assert set(body) == {"status", "databases", "checks"}
    assert set(body["databases"].values()) <= STATES
    assert "127.0.0.1" not in answer.text
    return answer.status_code, body


async def is_well(client: httpx.AsyncClient) -> bool:
    return bool((await health(client))[1]["status"] == "ok")


async def wait_until_well(client: httpx.AsyncClient) -> None:
    await until(lambda: is_well(client), 5)


def assert_unavailable(answer: httpx.Response, seconds: float, store: Store) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["store"] == store
    assert seconds < Settings.model_fields["postgres_request_deadline"].default + SLACK


async def refused(client: httpx.AsyncClient, headers: dict[str, str]) -> list[str]:
    """What did not succeed of a request to every route that people use."""
    created = await client.post("/conversations", headers=headers, json={"title": "t"})
    conversation = f"/conversations/{created.json().get('id')}"
    answers = [
        created,
        await client.post("/users/register", json=account()),
        await client.get("/users/me", headers=headers),
        await client.get(f"/users/{headers['X-User-Id']}", headers=headers),
        await client.patch("/users/me", headers=headers, json={"bio": "x"}),
        await client.get("/conversations", headers=headers),
        await client.get(conversation, headers=headers),
        await client.post(f"{conversation}/messages", headers=headers, json={"content": "x"}),
        await client.get(f"{conversation}/messages", headers=headers),
    ]
    return [f"{each.request.method} {each.request.url.path}: {each.text}" for each in answers if not each.is_success]


def connected_redis(lab: Lab) -> Any:
    return Redis.from_url(lab.settings.dsn("redis_dsn"))


async def forget(lab: Lab, user_id: str) -> None:
    async with connected_redis(lab) as redis:
        async for key in redis.scan_iter(match=f"*{user_id}*"):
            await redis.delete(key)
