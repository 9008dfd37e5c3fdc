"""Question: what do traces cost? Run: `make bench-traces` (SMOKE=1: for its errors alone).

Method: embedded servers of its own; the app without traces, with one request in a hundred traced, and with all.
Requests come one after the other over one connection, and the three take turns. What is compared is the processor time
that the process has used for a request, all its threads together: also the one that sends spans to a collector.
"""

import asyncio
import json
import os
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import psutil

from tests.product.collector import Collector
from tests.product.people import register
from tests.under_test import own_lab
from tristore.testing import log_of_run
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import App, RawConnection

SMOKE = bool(os.environ.get("SMOKE"))
ROUNDS = 1 if SMOKE else 5
RARELY = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
CHANGE = json.dumps({"bio": "reads a lot"}).encode()
KINDS = {
    "a cached profile": (2_000, "GET", "/users/me", b""),
    "a list of conversations": (400, "GET", "/conversations", b""),
    "a change of a profile": (100, "PATCH", "/users/me", CHANGE),
}
"""With how many of them are measured at a time: the system counts processor time in steps of 10 ms."""


async def main(folder: Path) -> None:
    log_of_run.keep_in(folder / "apps.log")
    async with own_lab(folder) as lab, Collector.running() as collector, AsyncExitStack() as exits:
        ways = {"off": {}, "one in a hundred": collector.environment | RARELY, "all": collector.environment}
        apps = {way: await exits.enter_async_context(lab.app(**variables)) for way, variables in ways.items()}
        headers = {"Content-Type": "application/json", **await register(apps["off"].client)}
        used: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(1 + ROUNDS):  # the first is to get warm
            for kind in KINDS:
                for way, app in apps.items():
                    used[kind, way].append(await _microseconds(app, kind, headers))
        print(f"{'':26}{'off':>10}", *(f"{way:>18}" for way in list(ways)[1:]))
        for kind in KINDS:
            off, *others = (median(used[kind, way][1:]) for way in ways)
            print(f"{kind:26}{off:>7.0f} us", *(f"{time:>8.0f} us {time / off:>6.2f}" for time in others))
        assert collector.spans


async def _microseconds(app: App, kind: str, headers: dict[str, str]) -> float:
    times, method, path, body = KINDS[kind]
    times = 20 if SMOKE else times
    process = psutil.Process(app.process.pid)
    before = process.cpu_times()
    async with RawConnection.to(app) as connection:
        for _ in range(times):
            status, _ = await connection.request(method, path, headers, body)
            assert status == 200
    after = process.cpu_times()
    return 1e6 * (after.user + after.system - before.user - before.system) / times


if __name__ == "__main__":
    with guarded_folder("tristore-traces-") as folder:
        asyncio.run(main(folder))
