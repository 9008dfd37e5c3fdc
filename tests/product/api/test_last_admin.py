"""Somebody stays an admin, whoever asks for what at the same time."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from sqlalchemy import text

from tests.product.people import register, register_admin
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import query

WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

Leave = Callable[[httpx.AsyncClient, dict[str, str], dict[str, str]], Awaitable[httpx.Response]]


async def demote(client: httpx.AsyncClient, admin: dict[str, str], user: dict[str, str]) -> httpx.Response:
    return await client.put(f"/users/{user['X-User-Id']}/role", headers=admin, json={"role": "learner"})


async def disable(client: httpx.AsyncClient, admin: dict[str, str], user: dict[str, str]) -> httpx.Response:
    return await client.put(f"/users/{user['X-User-Id']}/disabled", headers=admin, json={"disabled": True})


async def erase(client: httpx.AsyncClient, _: dict[str, str], user: dict[str, str]) -> httpx.Response:
    return await client.delete("/users/me", headers=user)


async def test_the_last_admin_stays_one(alone: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = alone
    admin, learner = await register_admin(client, stores), await register(client)
    refused = await demote(client, admin, admin)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/last-admin")
    assert (await client.get("/users/me", headers=admin)).json()["role"] == "admin"
    assert (await demote(client, admin, learner)).status_code == 200
    other = await register_admin(client, stores)
    assert (await demote(client, admin, admin)).status_code == 200
    assert (await demote(client, other, other)).status_code == 409


async def test_the_last_admin_leaves_by_no_other_way(alone: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = alone
    admin = await register_admin(client, stores)
    own = f"/users/{admin['X-User-Id']}"
    for leave in (client.delete("/users/me", headers=admin), disable(client, admin, admin)):
        refused = await leave
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/last-admin")
    assert (await client.get(own, headers=admin)).json()["role"] == "admin"
    other = await register_admin(client, stores)
    assert (await disable(client, admin, other)).status_code == 200  # who is disabled is none that is left
    assert (await client.delete("/users/me", headers=admin)).status_code == 409
    await register_admin(client, stores)
    assert (await client.delete("/users/me", headers=admin)).status_code == 202


@pytest.mark.parametrize("leave", [demote, erase])
async def test_of_two_admins_who_go_at_once_one_stays(leave: Leave, alone: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = alone
    ana, ben = await register_admin(client, stores), await register_admin(client, stores)

    async def both_wait() -> bool:
        return bool((await query(stores, WAITING))[0].n == 2)

    async with stores.postgres.engine.begin() as connection:
        await connection.execute(text("SELECT id FROM users FOR UPDATE"))
        gone = asyncio.gather(leave(client, ana, ben), leave(client, ben, ana))
        await until(both_wait, 5)
    assert sorted(answer.is_success for answer in await gone) == [False, True]
    admins = await query(stores, "SELECT count(*) AS n FROM users WHERE role = 'admin'")
    assert admins[0].n == 1
