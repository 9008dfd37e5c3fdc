"""`make attack`: each attack by ATTACKERS at once (50), on a fresh app, and what it could take. SMOKE=1: by a few, and
bounds of time and memory may be missed."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.attack import connections, requests
from tests.attack.target import Row, Target, target
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import PROJECT, percentile

SMOKE = bool(os.environ.get("SMOKE"))
ATTACKERS = int(os.environ.get("ATTACKERS") or (5 if SMOKE else 50))
MOST_MEGABYTES, MOST_MS = 400, 100
ATTACKS: list[Callable[[Target], Awaitable[list[Row]]]] = [
    connections.endless,
    connections.slow,
    connections.unread,
    connections.pipelines,
    connections.crowd,
    requests.large_bodies,
    requests.guesses,
    requests.floods,
    requests.growth,
    requests.unread_answers,
    requests.hosts,
]


async def main() -> bool:
    """Attack, print a table, and return whether every bound held."""
    with guarded_folder("tristore-attack-") as folder:
        rows = await attack(folder)
    return all(row.held or (SMOKE and row.in_time) for row in rows)


async def attack(folder: Path) -> list[Row]:
    rows: list[Row] = []
    async with target(folder, ATTACKERS) as it, watched(it, rows):
        for each in ATTACKS:
            rows += shown(await each(it))
    return rows


@asynccontextmanager
async def watched(it: Target, rows: list[Row]) -> AsyncIterator[None]:
    """Add what the app took at most, and how long it made others wait."""
    most = 0

    async def weigh() -> None:
        nonlocal most
        while True:
            most = max(most, psutil.Process(it.app.process.pid).memory_info().rss)
            await asyncio.sleep(0.1)

    weighing = asyncio.create_task(weigh())
    command = (sys.executable, "-m", "tests.attack.prober", it.where[0], str(it.where[1]))
    prober = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdin=PIPE, stdout=PIPE)
    try:
        yield
    finally:
        weighing.cancel()
        told, _ = await prober.communicate(b"")  # without input Python 3.11 leaves it open
    megabytes, took = most // 2**20, json.loads(told)
    p99, what = percentile(took, 0.99), f"/health/live, asked {len(took)} times"
    fits = megabytes < MOST_MEGABYTES
    rows += shown(
        [
            Row("memory of the process", ATTACKERS, f"{MOST_MEGABYTES} MB", f"{megabytes} MB", fits, True),
            Row(what, 1, f"p99 {MOST_MS} ms", f"p99 {p99:.0f} ms", p99 < MOST_MS, True),
        ]
    )


def shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        held = "held" if row.held else "NOT HELD"
        print(f"{row.what:39} {row.attackers:5}  {row.bound:31} {held:9} {row.measured}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
