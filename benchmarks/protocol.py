"""Question: what does the server's protocol cost beside those that uvicorn brings? Run: `make bench-protocol` (SMOKE=1:
for its errors alone).

Method: no stores; one uvicorn process for each protocol, with the same bare route; wrk sends on 32 connections, the
servers alone on one core where there are two. Protocols take turns, round after round; ratios are medians of rounds.
zttp takes part where it is installed.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
from fastapi import FastAPI, Response

from benchmarks.comparison import Comparisons, Contestant, ratios_of
from benchmarks.load import SERVER_CORES, Request, pin, require_wrk, write_requests
from tristore.ops.serve import PROTOCOL
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import PROJECT, App, answers, free_port, until
from tristore.testing.warm import WarmProcess, preload

OURS, STOCK = "ours", "httptools"
PROTOCOLS = {STOCK: "httptools", OURS: PROTOCOL, "h11": "h11", **({"zttp": "zttp"} if find_spec("zttp") else {})}
AT_MOST = 1.05
"""What ours may cost of uvicorn's own."""

app = FastAPI(openapi_url=None)


@app.get("/bare")
async def bare() -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def main(folder: Path, compare: Comparisons) -> None:
    requests = write_requests(folder / "bare", [Request("/bare")])
    async with AsyncExitStack() as exits:
        contestants = {
            name: Contestant(await exits.enter_async_context(serving(folder, http)), requests, ours=name == OURS)
            for name, http in PROTOCOLS.items()
        }
        runs = await compare.run("Bare route", contestants, against=(STOCK,))
    for name in PROTOCOLS:
        if name != STOCK:
            cost = 1 / ratios_of(runs[name], runs[STOCK])[1]
            bar = f"at most {AT_MOST}" if name == OURS else ""
            compare.fact(f"Processor time of {name}, of {STOCK}", round(cost, 3), bar, met=not bar or cost <= AT_MOST)


@asynccontextmanager
async def serving(folder: Path, http: str) -> AsyncIterator[App]:
    how = ("--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75", "--loop", "asyncio")
    where = ("--app-dir", str(PROJECT), "--port", str(port := free_port()))
    preload("fastapi")
    process = WarmProcess(
        "uvicorn", f"{__spec__.name}:app", "--http", http, *how, *where, cwd=folder, env=os.environ, log=folder / "log"
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        try:
            await until(lambda: answers(client, "/bare"), 60)
            pin(process.pid, SERVER_CORES)
            yield App(process, client)
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    require_wrk()
    smoke = bool(os.environ.get("SMOKE"))
    comparing = Comparisons(rounds=1 if smoke else 15, seconds=1 if smoke else 2, together=smoke)
    with guarded_folder("tristore-bench-") as own_folder:
        asyncio.run(main(own_folder, comparing))
    sys.exit(bool(comparing.errors))
