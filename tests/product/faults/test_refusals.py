"""Stores that answer and refuse: what works, what is said, and how soon all is well again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from anyio import to_thread
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from tests.product.outages import assert_unavailable, forget, health, refused, wait_until_well
from tests.product.people import account, register
from tests.product.sessions import LOGOUT, join
from tests.under_test import Lab, stores_beside
from tristore.testing.lab import answers, free_port, until
from tristore.testing.outbox import query

Refusal = Callable[[Redis], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _configured(during: dict[str, str], redis: Redis) -> AsyncIterator[None]:
    before = {name: (await redis.config_get(name))[name] or "" for name in during}
    for name, value in during.items():
        await redis.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)


@asynccontextmanager
async def _cannot_save(redis: Redis) -> AsyncIterator[None]:
    """Its folder is gone, and it is told to save: to Redis that is a full disk."""
    folder = Path(str((await redis.config_get("dir"))["dir"]))
    await to_thread.run_sync(folder.rmdir)
    try:
        async with _configured({"save": "3600 1"}, redis):
            await redis.bgsave()
            async with asyncio.timeout(5):
                while (await redis.info("persistence"))["rdb_last_bgsave_status"] != "err":
                    await asyncio.sleep(0.02)
            yield
    finally:
        await to_thread.run_sync(folder.mkdir, 0o700)


@asynccontextmanager
async def _replica(redis: Redis) -> AsyncIterator[None]:
    await redis.replicaof("127.0.0.1", free_port())
    try:
        yield
    finally:
        await redis.replicaof("NO", "ONE")


REFUSALS: dict[str, tuple[Refusal, str]] = {
    "no replica": (partial(_configured, {"min-replicas-to-write": "1"}), "error: refuses writes"),
    "out of memory": (
        partial(_configured, {"maxmemory-policy": "noeviction", "maxmemory": "1mb"}),
        "error: refuses writes",
    ),
    "cannot save": (_cannot_save, "error: refuses writes"),
    "made a replica": (_replica, "error: read only"),
}


@asynccontextmanager
async def connected(lab: Lab) -> AsyncIterator[Redis]:
    async with Redis.from_url(lab.settings.dsn("redis_dsn"), decode_responses=True) as redis:
        yield redis


@pytest.fixture(scope="module")
async def clients(lab: Lab) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Of two processes that would park an effect at its second failure."""
    more = {"OUTBOX_MAX_ATTEMPTS": "2", "POSTGRES_REQUEST_DEADLINE": "8", "MONGODB_TIMEOUT": "3"}
    async with lab.app(**more) as here, lab.app(**more) as there:
        yield here.client, there.client


async def parked(lab: Lab) -> list[Any]:
    async with stores_beside(lab.settings) as stores:
        return list(await query(stores, "SELECT aggregate, store, last_error FROM outbox_streams WHERE dead"))


async def says(client: httpx.AsyncClient, store: str, state: str) -> bool:
    return bool((await health(client))[1]["databases"][store] == state)


async def bio(client: httpx.AsyncClient, headers: dict[str, str]) -> str:
    answer = await client.get("/users/me", headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["bio"])


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_redis_that_refuses_is_done_without(
    lab: Lab, clients: tuple[httpx.AsyncClient, httpx.AsyncClient], refusal: str
) -> None:
    here = clients[0]
    refuse, state = REFUSALS[refusal]
    headers, member = await register(here), await join(here)
    for client in clients:
        await wait_until_well(client)
        for _ in range(3):
            assert await bio(client, headers) == ""
            assert await member.statuses(client) == [200] * 3
    async with connected(lab) as redis, refuse(redis):
        for number in range(10):
            changed = await here.patch("/users/me", headers=headers, json={"bio": f"{number}"})
            assert (changed.status_code, await bio(here, headers)) == (200, f"{number}")
        await member.end(LOGOUT, here)
        for client in clients:
            assert await member.statuses(client) == LOGOUT.after
            assert await refused(client, headers) == []
            await until(partial(says, client, "redis", state), 5)
            assert (await health(client))[1]["status"] == "degraded"
            assert await bio(client, headers) == "x"
    for client in clients:
        await wait_until_well(client)
        assert await member.statuses(client) == LOGOUT.after
        assert await bio(client, headers) == "x"
    assert await parked(lab) == []


@pytest.mark.parametrize("right", ["info", "@scripting", "subscribe"])
async def test_a_redis_user_without_a_right_is_done_without(lab: Lab, right: str) -> None:
    dsn = f"redis://weak:but-long@{lab.settings.dsn('redis_dsn').partition('@')[2]}"
    async with connected(lab) as redis:
        await redis.acl_setuser(
            "weak",
            enabled=True,
            passwords=["+but-long"],
            keys=["*"],
            channels=["*"],
            commands=["+@all", f"-{right}"],
        )
        async with lab.app(REDIS_DSN=dsn) as here, lab.app(REDIS_DSN=dsn) as there:
            headers, member = await register(here.client), await join(here.client)
            await until(partial(says, here.client, "redis", "error: not permitted"), 5)
            assert (await here.client.patch("/users/me", headers=headers, json={"bio": "y"})).status_code == 200
            await member.end(LOGOUT, here.client)
            for app in (here, there):
                assert await bio(app.client, headers) == "y"
                assert await member.statuses(app.client) == LOGOUT.after
            assert await refused(there.client, headers) == []
        await redis.acl_deluser("weak")
    assert await parked(lab) == []


@asynccontextmanager
async def read_only(lab: Lab) -> AsyncIterator[None]:
    """As a server whose disk is full, or that was demoted: sessions stay, and learn it."""
    connection = await asyncpg.connect(lab.servers["postgresql"].administrator_dsn.replace("+asyncpg", ""))
    try:
        await connection.execute("SET default_transaction_read_only = off")  # of this session: to take it back
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        yield
    finally:
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()


async def test_a_read_only_postgresql_is_refused_before_a_connection_is_taken(
    lab: Lab, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    client = clients[0]
    cached, uncached = await register(client), await register(client)
    assert await bio(client, cached) == ""
    async with read_only(lab):
        await until(partial(says, client, "postgresql", "error: read only"), 5)
        await forget(lab, uncached["X-User-Id"])
        for _ in range(3):
            started = time.monotonic()
            refused = await client.patch("/users/me", headers=cached, json={"bio": "y"})
            assert_unavailable(refused, time.monotonic() - started, "postgresql")
            assert (await client.post("/users/register", json=account())).status_code == 503
            assert await bio(client, cached) == ""
        status, body = await health(client)
        assert (status, body["status"], body["checks"]["postgresql"]["pool_in_use"]) == (503, "unavailable", 0)
        assert await answers(client, "/health/ready", 503)
    back_at = time.monotonic()
    for each in clients:
        await until(partial(answers, each, "/health/ready"), 5)
        assert (await each.patch("/users/me", headers=cached, json={"bio": "z"})).status_code == 200
        assert await bio(each, uncached) == ""
    assert time.monotonic() - back_at < 5


@asynccontextmanager
async def write_locked(lab: Lab) -> AsyncIterator[None]:
    """What a backup by snapshot does, or a disk that is full: `hello` and reads answer, writes wait."""
    async with AsyncMongoClient[dict[str, Any]](lab.settings.dsn("mongodb_dsn")) as client:
        await client.admin.command({"fsync": 1, "lock": True})
        try:
            yield
        finally:
            await client.admin.command("fsyncUnlock")


async def test_a_mongodb_whose_writes_stall_is_not_up_and_parks_nothing(
    lab: Lab, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    client = clients[0]
    async with write_locked(lab):
        headers = await register(client)
        await until(partial(says, client, "mongodb", "error: timeout"), 5)
        await asyncio.sleep(8)  # as long as its attempts would last
        assert await parked(lab) == []
        assert (await client.patch("/users/me", headers=headers, json={"bio": "x"})).status_code == 200
    await wait_until_well(client)

    async def has_welcome() -> bool:
        return len((await client.get("/conversations", headers=headers)).json()["items"]) == 1

    await until(has_welcome, 40)
