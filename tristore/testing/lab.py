"""Servers to stop and kill, and app processes that run on them."""

import asyncio
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import httpx
from anyio import to_thread

from tristore.embedded.servers import EmbeddedServers, Store
from tristore.ops.serve import PROTOCOL
from tristore.settings import TristoreSettings
from tristore.testing import log_of_run, warm
from tristore.testing.stores import Servers, environment

PROJECT = Path(__file__).parents[2]
Fault = Literal["stopped", "killed"]
FAULTS: tuple[Fault, ...] = ("stopped", "killed")
LONG = os.environ.get("FAULTS") == "all"
"""Whether the tests run in their long form: `make test-faults`."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of apps on this machine: without it each client loads the world's certificates, which takes 35 ms."""


@dataclass(frozen=True)
class Apps:
    """Runs processes of the app that uvicorn finds at `app_path`, such as main:app, on the databases of `settings`."""

    settings: TristoreSettings
    app_path: str
    folder: Path
    """Where they work: one that has no .env."""

    def app(self, **more: str) -> AbstractAsyncContextManager["App"]:
        """An app process of its own, stopped with SIGTERM at the end. `more` is for its environment."""
        uvicorn = ("uvicorn", "--app-dir", str(PROJECT), self.app_path, "--log-level", "warning", "--http", PROTOCOL)
        return self.running(*uvicorn, "--timeout-keep-alive", "75", "--port", **more)

    @asynccontextmanager
    async def running(self, *module: str, **more: str) -> AsyncIterator["App"]:
        """A module that serves on the port that comes as its last argument."""
        port = free_port()
        env = environment(self.settings, PYTHONPATH=str(PROJECT), **more)
        process = warm.WarmProcess(*module, str(port), cwd=self.folder, env=env, log=log_of_run.path())
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, timeout=10, event_hooks=log_of_run.HOOKS, verify=NO_TLS) as client:
            try:
                await until(lambda: answers(client, "/health/live"), 60)
                yield App(process, client)
            finally:
                process.terminate()
                await process.wait()


@dataclass(frozen=True)
class Lab(Apps):
    """Such apps, and servers of their own to stop and kill."""

    embedded: EmbeddedServers
    servers: Servers

    def on(self, settings: TristoreSettings) -> Self:
        """The same servers with other databases."""
        return replace(self, settings=settings)

    @asynccontextmanager
    async def without(self, store: Store, fault: Fault) -> AsyncIterator[None]:
        """Hang (SIGSTOP) or kill a server, and bring it back at the end."""
        self._signal(store, signal.SIGSTOP if fault == "stopped" else signal.SIGKILL)
        try:
            yield
        finally:
            await self.bring_back(store, fault)

    async def bring_back(self, store: Store, fault: Fault) -> None:
        if fault == "stopped":
            self._signal(store, signal.SIGCONT)
        else:
            await to_thread.run_sync(self.embedded.start, store)

    def _signal(self, store: Store, number: signal.Signals) -> None:
        for pid in self.embedded.pids(store):
            with suppress(ProcessLookupError):  # a child may have ended meanwhile
                os.kill(pid, number)


@dataclass(frozen=True)
class App:
    process: warm.WarmProcess
    client: httpx.AsyncClient


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(client: httpx.AsyncClient, path: str, status: int = 200) -> bool:
    try:
        return (await client.get(path)).status_code == status
    except httpx.TransportError:
        return False


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Wait for a condition and return how long it took. The longer it takes, the less often it is asked for: each time
    costs requests. Raises TimeoutError."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(min(max(0.05, (time.monotonic() - started) / 10), 0.25))
    return time.monotonic() - started


async def timed(request: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return await request, time.monotonic() - started


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class RawConnection:
    """Requests over one connection. For load: httpx takes more processor time for one than the app that it tests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, app: App) -> AsyncIterator["RawConnection"]:
        base = app.client.base_url
        reader, writer = await asyncio.open_connection(base.host, base.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):  # the app may have been killed
                await writer.wait_closed()

    async def post(self, path: str, headers: dict[str, str], body: object) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        return await self.request(
            "POST", path, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
        )

    async def request(self, method: str, path: str, headers: dict[str, str], content: bytes = b"") -> tuple[int, Any]:
        """Status and JSON of the answer, None where it has no body. Raises ValueError for a body that is not JSON."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
        return int(head.split()[1]), json.loads(await self._reader.readexactly(length)) if length else None

    def abort(self) -> None:
        """Hang up without a word."""
        self._writer.transport.abort()


async def post_repeatedly(
    app: App, path: str, headers: dict[str, str], body: object, times: int
) -> list[tuple[int, Any]]:
    """POST over one connection and return status and JSON of each answer."""
    async with RawConnection.to(app) as connection:
        return [await connection.post(path, headers, body) for _ in range(times)]
