"""A server of our protocol in this process, met with raw bytes."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tristore.http.protocol import HttpProtocol

LARGE = b"x" * 2**25
"""More than the kernel buffers for a connection."""


@dataclass
class Seen:
    """What the application was asked, and the state that the server keeps."""

    requests: list[tuple[str, bytes]] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    state: ServerState = field(default_factory=ServerState)
    port: int = 0


def app_for(seen: Seen) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.scopes.append(scope)
        if scope["path"] == "/early":
            await answer(send, b"early")
            return
        if scope["path"] == "/large":
            await answer(send, LARGE)
            return
        if scope["path"] == "/close":
            await answer(send, b"closed", [(b"connection", b"close")])
            return
        if scope["path"] == "/pieces":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for more in (True, False):
                await send({"type": "http.response.body", "body": b"piece", "more_body": more})
            return
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                seen.gone.set()
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/stream":
            await receive()
            seen.gone.set()
            return
        seen.requests.append((f"{scope['method']} {scope['path']}", body))
        await answer(send, b"%d" % len(body))

    return app


async def answer(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Any, seen: Seen) -> AsyncIterator[None]:
    config = uvicorn.Config(app, http=HttpProtocol, log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpProtocol(config, seen.state, {}), "127.0.0.1")
    seen.port = server.sockets[0].getsockname()[1]
    yield
    server.close()
    for connection in list(seen.state.connections):
        connection.transport.abort()
    await server.wait_closed()


@asynccontextmanager
async def connection(seen: Seen) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(seen: Seen, *parts: bytes) -> bytes:
    """Send the parts, each in a segment of its own, and return all that comes until the server closes."""
    async with connection(seen) as (reader, writer):
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.002)
        return await asyncio.wait_for(reader.read(), 10)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


async def only_connection(seen: Seen) -> HttpProtocol:
    """The server's end of it, once those before are closed."""
    await until(lambda: len(seen.state.connections) == 1)
    [server] = seen.state.connections
    assert isinstance(server, HttpProtocol)
    return server


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
