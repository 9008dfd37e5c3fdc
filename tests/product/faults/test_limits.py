"""Rate limits without Redis, and metrics of several workers."""

import os
import signal
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.product.metrics import SCRAPER, TOKEN, Samples, scrape, value
from tests.product.people import attempt, register
from tests.under_test import Lab
from tristore.testing.lab import FAULTS, NO_TLS, Fault, until


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_redis_the_limits_are_counted_in_the_process(lab: Lab, fault: Fault) -> None:
    async with lab.app(RATE_LIMIT_SIGN_IN_ADDRESS="3/minute", RATE_LIMIT_REQUESTS="3/minute") as app:
        headers = await register(app.client)
        async with lab.without("redis", fault):
            assert [await attempt(app.client, "x") for _ in range(4)] == [401, 401, 401, 429]
            reads = [(await app.client.get("/users/me", headers=headers)).status_code for _ in range(4)]
            assert reads == [200, 200, 200, 429]


def requests_counted(samples: Samples) -> float:
    return value(
        samples,
        "http_server_request_duration_seconds_count",
        http_route="/health/live",
        http_response_status_code="200",
    )


async def test_whichever_worker_is_asked_tells_of_all(lab: Lab) -> None:
    async with lab.app(WEB_CONCURRENCY="2", METRICS_TOKEN=TOKEN) as app:
        base = str(app.client.base_url)
        workers = await serving_workers(app.process.pid)
        before = requests_counted(await scrape(app.client, SCRAPER))
        for _ in range(60):  # connections of their own, so that the kernel spreads them over the workers
            async with httpx.AsyncClient(base_url=base, verify=NO_TLS) as client:
                assert (await client.get("/health/live")).status_code == 200

        async def told() -> set[tuple[float, float]]:
            seen = set()
            for _ in range(20):
                async with httpx.AsyncClient(base_url=base, verify=NO_TLS) as client:
                    samples = await scrape(client, SCRAPER)
                pools = value(samples, "store_pool_connections", store="postgresql", state="size")
                seen.add((requests_counted(samples) - before, pools))
            return seen

        await until(lambda: equals(told(), {(60, 40)}), 15)
        os.kill(workers[0], signal.SIGKILL)
        await until(lambda: tells_in_place_of(app.process.pid, workers), 15)
        # What a killed worker counted stays counted; its pools are gone, and those of the one in its place are there.
        await until(lambda: equals(told(), {(60, 40)}), 15)


async def equals(found: Awaitable[object], expected: object) -> bool:
    return await found == expected


async def serving_workers(parent: int) -> list[int]:
    """The ids of the two processes that serve, once both do."""

    async def both_tell() -> bool:
        return [has_told(pid) for pid in workers_of(parent)] == [True, True]

    await until(both_tell, 15)
    return workers_of(parent)


async def tells_in_place_of(parent: int, workers: list[int]) -> bool:
    new = set(workers_of(parent)) - set(workers)
    return any(has_told(pid) for pid in new)


def has_told(worker: int) -> bool:
    return any(Path(tempfile.gettempdir()).glob(f"*/gauge_livesum_{worker}.db"))


def workers_of(parent: int) -> list[int]:
    workers = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ends while it is looked at
            if "spawn_main" in " ".join(child.cmdline()):  # not the resource tracker
                workers.append(child.pid)
    return workers
