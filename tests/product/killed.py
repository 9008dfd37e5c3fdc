"""Kills the app at a chosen call to a store."""

import asyncio
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.under_test import Lab, doomed_app
from tristore.stores.postgres import engine_for
from tristore.testing.lab import LONG, answers, until

# Each kill costs the start of a process. `make test-faults` kills at every call, the short form at every eighth.
STRIDE = 1 if LONG else 8
NAME = "doomed"


async def killed_at(lab: Lab, n: int, method: str, path: str, headers: dict[str, str], body: Any) -> bool:
    """Send one request to an app that dies at its n-th call to a store. Returns whether it died. What PostgreSQL had
    been sent by then is done."""
    dsn = lab.settings.dsn("postgres_dsn")
    # The calls of its relay count too: few of them.
    async with doomed_app(lab, OUTBOX_POLL_SECONDS="30", APP_NAME=NAME) as doomed:
        try:
            await doomed.client.request(method, path, headers={**headers, "X-Kill-At": str(n)}, json=body)
            await asyncio.sleep(0.3)  # what goes on after the answer counts too
        except httpx.TransportError:
            pass
        died = doomed.process.returncode is not None or not await answers(doomed.client, "/health/live")
    engine = engine_for(dsn, {})
    try:
        await until(lambda: _has_gone(engine), 10)
    finally:
        await engine.dispose()
    return died


async def _has_gone(engine: AsyncEngine) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE :name AND datname = current_database()"
    async with engine.connect() as connection:
        return bool(await connection.scalar(text(sql), {"name": f"{NAME}-%"}) == 0)
