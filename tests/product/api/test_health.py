"""The probes, in process."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from config import Settings
from tristore.ops import health as health_service
from tristore.stores.stores import Stores


async def test_reports_all_three_stores(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert body["databases"] == {"postgresql": "connected", "redis": "connected", "mongodb": "connected"}
    assert body["checks"]["postgresql"]["pool_size"] == 20
    assert 0 < body["checks"]["mongodb"]["latency_ms"] < 1000


async def test_probes_answer_ok(client: httpx.AsyncClient) -> None:
    for name in ("live", "ready", "startup"):
        answer = await client.get(f"/health/{name}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_is_right_while_the_pools_are_exhausted(
    client: httpx.AsyncClient, stores: Stores, settings: Settings
) -> None:
    async with AsyncExitStack() as held:
        for _ in range(settings.postgres_pool_size):
            await held.enter_async_context(stores.postgres.engine.connect())
        pool: Any = stores.redis.client.connection_pool
        taken = [await pool.get_connection() for _ in range(settings.redis_max_connections)]
        await asyncio.sleep(1.1)  # until the last check is no longer kept
        started = time.monotonic()
        answer = await client.get("/health")
        assert time.monotonic() - started < 1
        assert answer.json()["status"] == "ok"
        assert answer.json()["checks"]["postgresql"]["pool_in_use"] == settings.postgres_pool_size
        for connection in taken:
            await pool.release(connection)


async def test_concurrent_callers_share_one_check(client: httpx.AsyncClient, stores: Stores) -> None:
    await asyncio.sleep(1.1)  # until the last check is no longer kept

    async def probes() -> int:
        status = await stores.mongodb.probe.admin.command("serverStatus")
        return int(status["metrics"]["commands"]["update"]["total"])

    before = await probes()
    for _ in range(100):
        await client.get("/health")
    assert 0 < await probes() - before <= 2


async def test_a_report_is_renewed_while_it_is_still_given_out(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_service, "KEPT_SECONDS", 60)
    monkeypatch.setattr(health_service, "RENEWED_SECONDS", 60)
    answers = {(await client.get("/health")).content}  # latencies tell one check from another
    monkeypatch.setattr(health_service, "RENEWED_SECONDS", 0)
    answers.add((await client.get("/health")).content)
    assert len(answers) == 1  # and the next check has begun
    async with asyncio.timeout(5):
        while len(answers) == 1:
            answers.add((await client.get("/health")).content)
            await asyncio.sleep(0.01)
