"""Load from wrk, on other cores than the servers' where there are several."""

import asyncio
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tristore.testing.lab import App

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT = 60 if os.environ.get("SMOKE") else 10
"""Seconds without an answer that count as an error. A short run is for errors alone, on a machine that is busy with
other things too: passwords, which are hashed behind all else, take long there."""
REQUESTS_A_RUN = 10_000_000
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
IS_PINNED = len(CORES) > 1 and not os.environ.get("SMOKE")
SERVER_CORES, OTHER_CORES = CORES[:1], CORES[1:]
"""The servers are alone on the first core: stores, wrk and this process have the others."""
_starts = itertools.count(0, REQUESTS_A_RUN)


@dataclass(frozen=True)
class Request:
    path: str
    token: str = ""
    body: str = ""


@dataclass(frozen=True)
class Run:
    """What came of a load on one server."""

    rate: float
    """Good answers a second."""
    p50_ms: float
    p99_ms: float
    errors: int
    """Neither good nor a 503 with `Retry-After`."""
    refused: int
    """503 with `Retry-After`."""
    requests: int
    cpu_us: float
    """The server's processor time for one request: other work on the machine changes it less than the rate."""
    busy: float
    """The share of a core that the server used."""

    def beside(self, other: "Run") -> "Run":
        """Both together, of two servers at the same time. The times are those of the slower one."""
        requests = self.requests + other.requests
        return Run(
            self.rate + other.rate,
            max(self.p50_ms, other.p50_ms),
            max(self.p99_ms, other.p99_ms),
            self.errors + other.errors,
            self.refused + other.refused,
            requests,
            (self.cpu_us * self.requests + other.cpu_us * other.requests) / max(requests, 1),
            self.busy + other.busy,
        )


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        sys.exit("wrk makes the load and is missing: apt-get install wrk, or brew install wrk")


def pin(pid: int, cores: Sequence[int]) -> None:
    """Where a process runs from now on, with what it starts."""
    if IS_PINNED:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, cores)


def write_requests(file: Path, requests: Iterable[Request]) -> Path:
    lines = ["\t".join(("POST" if r.body else "GET", r.path, r.token, r.body)) for r in requests]
    file.write_text("\n".join(lines))
    return file


def count_requests(file: Path) -> int:
    return len(file.read_text().splitlines())


async def load(app: App, requests: Path, seconds: int, connections: int = 32, *, skip: int = 0) -> Run:
    """Send the requests in turn, over and over, without the first `skip`. Raises RuntimeError when wrk fails or the
    server has ended."""
    if app.process.returncode is not None:
        raise RuntimeError(f"{app.client.base_url} ended with {app.process.returncode}")
    process = psutil.Process(app.process.pid)
    before = _cpu_seconds(process)
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s", f"--script={SCRIPT}"),
        *(str(app.client.base_url), "--", str(requests), str(next(_starts) + skip)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await wrk.communicate()
    if wrk.returncode:
        raise RuntimeError(f"wrk ended with {wrk.returncode}: {output.decode()}")
    told = json.loads(output.splitlines()[-1])
    cpu = _cpu_seconds(process) - before
    return Run(
        rate=(told["requests"] - told["bad_statuses"]) / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        errors=told["bad_statuses"] - told["refused"] + told["no_answers"],
        refused=told["refused"],
        requests=told["requests"],
        cpu_us=cpu / max(told["requests"], 1) * 1e6,
        busy=cpu / told["seconds"],
    )


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
