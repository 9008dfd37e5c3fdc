"""The probes, in process."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from config import Settings
from main import create_app
from tests.product.metrics import scrape, value
from tests.product.outages import wait_until_well
from tristore.ops import health as health_service
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.mail import letter_box
from tristore.testing.stores import client_of


async def test_reports_all_three_stores(client: httpx.AsyncClient) -> None:
    await wait_until_well(client)
    answer = await client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert body["databases"] == {"postgresql": "connected", "redis": "connected", "mongodb": "connected"}
    assert body["checks"]["mail"] is None
    assert body["checks"]["postgresql"]["pool_size"] == 20
    assert 0 < body["checks"]["mongodb"]["latency_ms"] < 1000


async def test_probes_answer_ok(client: httpx.AsyncClient) -> None:
    for name in ("live", "ready", "startup"):
        answer = await client.get(f"/health/{name}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_mail_server_that_is_away_is_told_and_the_service_stays_ready(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_service, "MAIL_KEPT_SECONDS", 0)
    async with letter_box() as box:
        mailing = settings.model_copy(update={"mail_dsn": SecretStr(box.dsn)})
        async with client_of(create_app(mailing, stores)) as client:

            async def says(status: str, mail: str, up: int) -> bool:
                answer = await client.get("/health")
                assert answer.status_code == (await client.get("/health/ready")).status_code == 200
                told = (
                    answer.json()["status"],
                    answer.json()["checks"]["mail"],
                    value(await scrape(client), "mail_up"),
                )
                return told == (status, mail, up)

            await until(lambda: says("ok", "connected", 1), 20)
            async with box.closed():
                await until(lambda: says("degraded", "error: unreachable", 0), 20)
            await until(lambda: says("ok", "connected", 1), 20)


async def test_a_mail_server_that_answers_is_asked_seldom(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_service, "RENEWED_SECONDS", 0)
    monkeypatch.setattr(health_service, "KEPT_SECONDS", 0)
    app = create_app(settings, stores)
    async with client_of(app) as client:
        asked = 0

        async def counted() -> None:
            nonlocal asked
            asked += 1

        app.state.health._mail = counted
        reports = {(await client.get("/health")).content for _ in range(5)}  # latencies tell one check from another
    assert len(reports) > 1
    assert asked == 1


async def test_is_right_while_the_pools_are_exhausted(
    client: httpx.AsyncClient, stores: Stores, settings: Settings
) -> None:
    async with AsyncExitStack() as held:
        for _ in range(settings.postgres_pool_size):
            await held.enter_async_context(stores.postgres.engine.connect())
        pool: Any = stores.redis.client.connection_pool
        taken = [await pool.get_connection() for _ in range(settings.redis_max_connections)]
        await asyncio.sleep(1.1)  # until the last check is no longer kept
        answer = await client.get("/health")
        assert answer.json()["status"] == "ok"
        assert answer.json()["checks"]["postgresql"]["pool_in_use"] == settings.postgres_pool_size
        for connection in taken:
            await pool.release(connection)


async def test_concurrent_callers_share_one_check(settings: Settings, stores: Stores) -> None:
    app = create_app(settings, stores)
    async with client_of(app) as client:
        health = app.state.health
        probes, asked = health._probes, 0

        async def counted() -> None:
            nonlocal asked
            asked += 1
            await probes["mongodb"]()

        health._probes = {**probes, "mongodb": counted}
        await asyncio.sleep(1.1)  # until the last check is no longer kept
        await asyncio.gather(*(client.get("/health") for _ in range(100)))
    assert 0 < asked <= 2


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
