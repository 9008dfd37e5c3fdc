"""`manage.py run` of the service itself, as images and pods start it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from anyio import to_thread

from tests.product.metrics import SCRAPER, TOKEN
from tests.under_test import Lab
from tristore.testing.lab import PROJECT, answers, free_port, until
from tristore.testing.stores import environment

MUTE_RESOLVER = """
import socket, time
ask = socket.getaddrinfo
def getaddrinfo(host, *more, **options):
    if host and str(host).endswith(".invalid"):
        time.sleep(300)
    return ask(host, *more, **options)
socket.getaddrinfo = getaddrinfo
"""
"""What a resolver does whose servers do not answer, but for longer: it waits."""
NAMES = {
    "POSTGRES_DSN": "postgresql://app@a.invalid/app",
    "REDIS_DSN": "redis://b.invalid/0",
    "MONGODB_DSN": "mongodb://c.invalid/",
    "MAIL_DSN": "off",
}
PRODUCTION = {
    "ENVIRONMENT": "production",
    "MAIL_DSN": "off",
    "METRICS_TOKEN": TOKEN,
    "RATE_LIMIT_ANONYMOUS": "1000/minute",
}
TRUSTED = {f"{store}_TRUSTED_NETWORK": "true" for store in ("POSTGRES", "REDIS", "MONGODB")}


@asynccontextmanager
async def running(folder: Path, env: dict[str, str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    log = folder / "log"
    with log.open("w") as file:
        command = (sys.executable, str(PROJECT / "manage.py"), "run")
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stdout=file, stderr=file)
    try:
        yield process, log
    finally:
        if process.returncode is None:
            for one in (*psutil.Process(process.pid).children(), psutil.Process(process.pid)):
                one.kill()
            await process.wait()


async def test_two_processes_serve_in_production_and_log_json_alone(lab: Lab, tmp_path: Path) -> None:
    port = free_port()
    more = {"WEB_CONCURRENCY": "2", "PORT": str(port), **PRODUCTION, **TRUSTED}
    env = environment(lab.settings, PYTHONPATH=str(PROJECT), **more)
    async with (
        running(tmp_path, env) as (process, log),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        await until(lambda: has(process, log, '"event": "started"', 2), 90)
        await until(lambda: answers(client, "/health/live"), 30)  # it listens a moment later
        assert (await client.get("/health", headers=SCRAPER)).json()["status"] == "ok"
        assert (await client.get("/nowhere")).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines[1]["event"], lines[-1]["event"]) == (
        f"Started parent process [{process.pid}]",
        f"Stopping parent process [{process.pid}]",
    )
    assert {"access", "uvicorn.error"} <= {line["logger"] for line in lines}


@pytest.mark.parametrize(("workers", "driver"), [("1", "motor"), ("1", "pymongo"), ("2", "motor")])
async def test_the_end_does_not_wait_for_names_that_do_not_resolve(tmp_path: Path, workers: str, driver: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(MUTE_RESOLVER)
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_DSN")}
    more = {"WEB_CONCURRENCY": workers, "PORT": str(free_port()), "MONGODB_DRIVER": driver}
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    env = inherited | NAMES | TRUSTED | more | {"ENVIRONMENT": "production", "PYTHONPATH": path}
    async with running(tmp_path, env) as (process, log):
        await until(lambda: has(process, log, "Application startup complete", int(workers)), 90)
        process.send_signal(signal.SIGTERM)
        # compose and Kubernetes wait for 30 s. A worker that has to be killed would end it with 1.
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def has(process: asyncio.subprocess.Process, log: Path, event: str, times: int) -> bool:
    text = await to_thread.run_sync(log.read_text)
    if process.returncode is not None:
        pytest.fail(f"It has ended: {text}")
    return text.count(event) >= times
