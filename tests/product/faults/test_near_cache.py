"""What one process changes is seen by another one whose near cache has it, and Redis may be stopped meanwhile."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tests.product.people import register, register_admin
from tests.product.sessions import CEILINGS, ENDINGS, LOGOUT, PATIENT, Clients, Ending, Headers, Member, join, warm
from tests.under_test import Lab, stores_beside
from tristore.cache.feed import ALIVE_SECONDS
from tristore.models import new_id
from tristore.stores.redis import open_redis
from tristore.stores.stores import Stores
from tristore.testing.cache import Rows, running
from tristore.testing.cluster import RedisCluster
from tristore.testing.lab import LONG, percentile, timed, until

AT_ONCE = 2
"""Seconds, for a busy machine. It takes a few milliseconds."""


@pytest.fixture(scope="module", params=["redis", "cluster"])
def redis_dsn(request: pytest.FixtureRequest, lab: Lab) -> str:
    """Of the lab's own, or of a cluster."""
    cluster: RedisCluster | None = request.getfixturevalue("cluster") if request.param == "cluster" else None
    return cluster.dsn if cluster else lab.settings.dsn("redis_dsn")


@pytest.fixture(scope="module")
async def stores(lab: Lab, redis_dsn: str) -> AsyncIterator[Stores]:
    async with stores_beside(lab.settings.model_copy(update={"redis_dsn": SecretStr(redis_dsn)})) as stores:
        yield stores


@pytest.fixture(scope="module")
async def clients(lab: Lab, redis_dsn: str) -> AsyncIterator[Clients]:
    env = {**PATIENT, **CEILINGS, "REDIS_DSN": redis_dsn}
    async with lab.app(**env) as here, lab.app(**env) as there:
        yield here.client, there.client


async def begin_sessions(stores: Stores, user_id: str, number: int) -> list[Headers]:
    """Sign in so many times, without the time that hashing takes."""
    tokens = [secrets.token_urlsafe(32) for _ in range(number)]
    sql = "INSERT INTO sessions (id, user_id, token_hash, expires_at) VALUES (:id, :user, :hash, now() + interval '1h')"
    rows = [{"id": new_id(), "user": user_id, "hash": hashlib.sha256(token.encode()).digest()} for token in tokens]
    async with stores.postgres.engine.begin() as connection:
        await connection.execute(text(sql), rows)
    return [{"Authorization": f"Bearer {token}"} for token in tokens]


async def test_sign_outs_are_seen_by_another_process_at_once(clients: Clients, stores: Stores) -> None:
    here, there = clients
    sessions = await begin_sessions(stores, (await register(here))["X-User-Id"], 200 if LONG else 50)
    took: list[float] = []
    for number, session in enumerate(sessions):
        if number % 50 == 0:
            await warm(there, *sessions[number : number + 50])
        assert (await here.post(LOGOUT.path, headers=session)).status_code == 204
        ended_at = time.monotonic()
        while (await there.get("/users/me", headers=session)).status_code == 200:
            assert time.monotonic() - ended_at < AT_ONCE
        took.append(time.monotonic() - ended_at)
    assert percentile(took, 0.99) < AT_ONCE / 2


@pytest.mark.parametrize("ending", ENDINGS, ids=["logout", "logout-all", "password"])
async def test_an_ended_session_is_refused_where_it_was_near(clients: Clients, ending: Ending) -> None:
    here, there = clients
    member = await join(here)
    for client in clients:
        await warm(client, *member.sessions)
    await member.end(ending, here)
    assert await member.statuses(here) == ending.after

    async def is_seen() -> bool:
        return await member.statuses(there) == ending.after

    assert await until(is_seen, AT_ONCE) < AT_ONCE


async def test_a_changed_profile_is_seen_where_it_was_near(clients: Clients) -> None:
    here, there = clients
    headers = await register(here)
    for number in range(20):
        for client in clients:
            await warm(client, headers)
        assert (await here.patch("/users/me", headers=headers, json={"bio": f"{number}"})).status_code == 200
        assert await has_bio(here, headers, f"{number}")
        await until(partial(has_bio, there, headers, f"{number}"), AT_ONCE)


async def has_bio(client: httpx.AsyncClient, headers: Headers, bio: str) -> bool:
    return bool((await client.get("/users/me", headers=headers)).json()["bio"] == bio)


async def test_a_changed_role_holds_where_it_was_near(clients: Clients, stores: Stores) -> None:
    here, there = clients
    admin, user = await register_admin(here, stores), await register(here)
    path = f"/users/{user['X-User-Id']}/role"

    async def may_set_roles() -> bool:
        answer = await there.put(path, headers=user, json={"role": "admin"})
        assert answer.status_code in {200, 403}
        return answer.status_code == 200

    await warm(there, user)
    assert not await may_set_roles()
    assert (await here.put(path, headers=admin, json={"role": "admin"})).status_code == 200
    await until(may_set_roles, AT_ONCE)
    await warm(there, user)
    assert (await here.put(path, headers=admin, json={"role": "learner"})).status_code == 200
    await until(lambda: is_refused(there, path, user), AT_ONCE)


async def is_refused(client: httpx.AsyncClient, path: str, headers: Headers) -> bool:
    answer = await client.put(path, headers=headers, json={"role": "learner"})
    return answer.status_code == 403


async def test_a_sign_out_that_redis_does_not_hear_of_waits_until_no_process_has_the_session(lab: Lab) -> None:
    async with AsyncExitStack() as stack:
        here, there = [(await stack.enter_async_context(lab.app(**CEILINGS))).client for _ in range(2)]
        members: list[Member] = [await join(here) for _ in ENDINGS]
        for client in (here, there):
            for member in members:
                await warm(client, *member.sessions)
        await stack.enter_async_context(lab.without("redis", "stopped"))

        async def end(member: Member, ending: Ending) -> float:
            answer, seconds = await timed(here.post(ending.path, headers=member.sessions[0], json=ending.body))
            assert answer.status_code == 204
            for client in (there, here):
                assert await member.statuses(client) == ending.after
            return seconds

        took = await asyncio.gather(*(end(member, ending) for member, ending in zip(members, ENDINGS, strict=True)))
        assert min(took) >= ALIVE_SECONDS


async def test_nothing_near_is_served_when_redis_has_not_been_heard_of(lab: Lab) -> None:
    rows = Rows()
    async with open_redis(lab.settings) as redis, running(redis, rows) as process:
        await process.warm("a")
        async with lab.without("redis", "stopped"):
            stopped_at = served_at = time.monotonic()
            rows.versions["a"] = 2
            while True:
                asked_at = time.monotonic()
                if await process.read("a") == 2:
                    break
                served_at = asked_at
                await asyncio.sleep(0)
            assert stopped_at < served_at < stopped_at + ALIVE_SECONDS
