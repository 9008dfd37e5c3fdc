"""`manage.py run`, on a service without stores: how its processes start, and how they end."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from anyio import to_thread

from tristore.testing.lab import PROJECT, free_port, until

PASSWORD = "of-nobody-else-here"
LOOKS_EACH_SECONDS = 1.0
"""uvicorn's parent asks its workers how they are: more often than this."""
SETTINGS = {
    "ENVIRONMENT": "production",
    "POSTGRES_DSN": f"postgresql://app:{PASSWORD}@127.0.0.1/app",
    "REDIS_DSN": f"redis://:{PASSWORD}@127.0.0.1/0",
    "MONGODB_DSN": f"mongodb://app:{PASSWORD}@127.0.0.1/?directConnection=true",
    "MAIL_DSN": "off",
    "SECRETS_DIR": "/nowhere",
}


@dataclass(frozen=True)
class Running:
    process: asyncio.subprocess.Process
    port: int
    log: Path

    def workers(self) -> list[psutil.Process]:
        """Without the tracker of resources, which multiprocessing starts too."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in "".join(child.cmdline())]

    def lines(self) -> list[dict[str, Any]]:
        """Each line of the log. Raises where one is not JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            return (await reader.read(12)).endswith(b"200")
        except OSError:
            return False
        finally:
            writer.close()

    async def ends(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after a signal where one is given."""
        if number:
            self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def started(folder: Path, workers: int, **more: str) -> AsyncIterator[Running]:
    port, log = free_port(), folder / "log"
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_DSN")}
    numbers = {"WEB_CONCURRENCY": str(workers), "PORT": str(port), "PYTHONPATH": str(PROJECT)}
    with log.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.tristore.small_service"),
            cwd=folder,  # no .env there
            env=inherited | SETTINGS | numbers | more,
            stdout=file,
            stderr=file,
        )
    try:
        yield Running(process, port, log)
    finally:
        if process.returncode is None:
            for one in (*psutil.Process(process.pid).children(), psutil.Process(process.pid)):
                one.kill()
            await process.wait()


async def test_each_line_of_parent_and_workers_is_json_and_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    async with started(tmp_path, 2) as running:
        await until(running.answers, 60)
        await until(lambda: has(running, "Started server process", 2), 60)
        killed = running.workers()[0]
        killed.kill()
        await until(lambda: has(running, "Started server process", 3), 60)
        assert await running.ends(signal.SIGTERM) == 0
    events = [line["event"] for line in running.lines()]
    assert events[:2] == [
        f"Uvicorn running on http://127.0.0.1:{running.port} (Press CTRL+C to quit)",
        f"Started parent process [{running.process.pid}]",
    ]
    assert f"Child process [{killed.pid}] died" in events
    assert events[-1] == f"Stopping parent process [{running.process.pid}]"


async def test_what_python_itself_tells_is_json_too(tmp_path: Path) -> None:
    async with started(tmp_path, 1, TALKS="1") as running:
        await until(running.answers, 60)
        await until(lambda: has(running, "broken in a thread", 1), 60)
        assert await running.ends(signal.SIGTERM) == 0
    loggers = {line["logger"]: line["level"] for line in running.lines()}
    assert loggers.items() >= {"py.warnings": "warning", "tristore.run": "error"}.items()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("broken", ["import", "lifespan"])
async def test_what_cannot_start_says_why_and_ends(tmp_path: Path, workers: int, broken: str) -> None:
    async with started(tmp_path, workers, BROKEN=broken) as running:
        assert await running.ends() == 3
    assert "ZeroDivisionError" in json.dumps(running.lines())


@pytest.mark.parametrize("workers", [1, 4])
async def test_each_mistake_is_one_line_of_json_in_production(tmp_path: Path, workers: int) -> None:
    mistakes = {"LOG_LEVEL": "LOUD", "SQL_ECHO": "true", "MONGODB_DSN": ""}
    async with started(tmp_path, workers, **mistakes) as running:
        assert await running.ends() == 1
    told = [(line["event"], line["mistake"].split()[0].strip(":")) for line in running.lines()]
    assert told == [("setting_refused", name) for name in ("LOG_LEVEL", "MONGODB_DSN", "SQL_ECHO")]
    assert PASSWORD not in running.log.read_text()


async def test_a_worker_that_starts_slowly_is_not_killed(tmp_path: Path) -> None:
    async with started(tmp_path, 2, SLOW_START="7") as running:  # uvicorn alone waits for 5 s
        await until(lambda: has(running, "Started server process", 2), 60)
        assert await running.ends(signal.SIGTERM) == 0
    assert not [line for line in running.lines() if "died" in line["event"]]


async def test_a_worker_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with started(tmp_path, 2) as running:
        await until(lambda: has(running, "Started server process", 2), 60)
        workers = running.workers()
        workers[0].suspend()
        await asyncio.sleep(LOOKS_EACH_SECONDS)  # by then uvicorn waits for its answer, and for nothing else
        assert await running.ends(signal.SIGTERM) == 1
        assert [worker for worker in workers if worker.is_running()] == []
    assert [line["worker"] for line in running.lines() if line["event"] == "worker_killed"] == [workers[0].pid]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_thread_that_waits_does_not_hold_up_the_end(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    async with started(tmp_path, workers, HANGS="300") as running:
        await until(lambda: has(running, "Started server process", workers), 60)
        await until(running.answers, 60)
        assert await running.ends(number) == 0


async def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with started(tmp_path, 2, PORT=str(taken.getsockname()[1])) as running:
            assert await running.ends() == 3
    [line] = running.lines()
    assert "address already in use" in line["event"].lower()


async def has(running: Running, event: str, times: int) -> bool:
    text = await to_thread.run_sync(running.log.read_text)
    if running.process.returncode is not None:
        pytest.fail(f"It has ended: {text}")
    return text.count(event) >= times
