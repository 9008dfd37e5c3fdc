"""What the guide's clients for live messages must stand: connections that are cut anywhere, and what a server says."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.product.people import register
from tests.product.things import start_conversation
from tests.under_test import apps_on, fresh_databases
from tristore.testing.lab import App, until
from tristore.testing.proxy import proxy_to
from tristore.testing.stores import Servers

CUTS = int(os.environ.get("CUTS", "200"))
SEED = int(os.environ.get("SEED", "1"))
LONGEST = 1200
"""Bytes: the head, the first frame and some events."""
SETTINGS = {"LIVE_RETRY_SECONDS": "0.001", "LIVE_MAX_PER_USER": "1000"}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
OVER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Follow(Protocol):
    def __call__(
        self, base: str, id_: str, token: str, after: int | None, on: Callable[[str, int], None], idle: float = 30
    ) -> Coroutine[Any, Any, int]:
        """Follow a conversation. `after` is the number of the last message that the client has. `on` gets "message" or
        "reset", and its number. After `idle` seconds without a byte the connection counts as dead. Returns the status
        that says why it is over."""


@dataclass
class Numbers:
    given: list[int] = field(default_factory=list)

    def on(self, kind: str, number: int) -> None:
        assert kind == "message"
        self.given.append(number)


async def follow_through_cuts(servers: Servers, folder: Path, follow: Follow) -> None:
    """Messages are posted at any moment, while one client that has none and one that begins with what comes are cut
    off. Fails when one of them misses a message, or is given one twice or out of order."""
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app(**SETTINGS) as app:
        headers = await register(app.client)
        await _follow(app, await start_conversation(app.client, headers), headers, follow)


async def _follow(app: App, path: str, headers: dict[str, str], follow: Follow) -> None:
    chance = random.Random(SEED)
    id_, token = path.rpartition("/")[2], headers["Authorization"].removeprefix("Bearer ")
    all_, later = Numbers(), Numbers()
    port = app.client.base_url.port
    assert port
    async with proxy_to(port) as proxy:
        proxy.cut_after = lambda: chance.randrange(LONGEST)
        base = f"http://127.0.0.1:{proxy.port}"
        clients = [
            asyncio.create_task(follow(base, id_, token, 0, all_.on)),
            asyncio.create_task(follow(base, id_, token, None, later.on)),
        ]
        posted = 0
        while proxy.cuts < CUTS or not later.given:
            posted += 1
            content = chance.choice(["a", "b\u2028c\u0085d", "e" * chance.randint(1, 300)])
            await _post(app, path, headers, {"id": f"m-{posted}", "content": content})
            await asyncio.sleep(chance.expovariate(100))
            assert not any(client.done() for client in clients), clients
        proxy.cut_after = lambda: float("inf")
        async with asyncio.timeout(30):
            while not all(numbers.given and numbers.given[-1] == posted for numbers in (all_, later)):
                await asyncio.sleep(0.02)
        for client in clients:
            client.cancel()
            with suppress(asyncio.CancelledError):
                await client
    assert all_.given == list(range(1, posted + 1))
    assert later.given == all_.given[later.given[0] - 1 :]


async def _post(app: App, path: str, headers: dict[str, str], message: dict[str, str]) -> None:
    # A busy machine may be late: the same message is then sent again.
    await until(partial(_is_taken, app, f"{path}/messages", headers, message), 10)


async def _is_taken(app: App, path: str, headers: dict[str, str], message: dict[str, str]) -> bool:
    answer = await app.client.post(path, headers=headers, json=message)
    assert answer.is_success or answer.status_code == 503, answer.text
    return answer.is_success


@dataclass
class Played:
    """A server that gives each connection the next answer. `hang` comes after an answer without an end."""

    answers: list[bytes]
    hang: bytes = b""
    port: int = 0
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When each connection came, and its `Last-Event-ID`."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.strip().split("\r\n")[1:])
        self.asked.append((time.monotonic(), fields.get("last-event-id", "")))
        answer = self.answers[len(self.asked) - 1]
        writer.write(answer)
        if self.hang and answer.endswith(self.hang):
            await reader.read()  # until the client has gone
        writer.close()


@asynccontextmanager
async def playing(*answers: bytes, hang: bytes = b"") -> AsyncIterator[Played]:
    played = Played(list(answers), hang)
    server = await asyncio.start_server(played.answer, "127.0.0.1", 0)
    played.port = server.sockets[0].getsockname()[1]
    async with server:
        yield played


async def heed_what_the_server_says(follow: Follow) -> None:
    """The number of the first frame, `retry`, `Retry-After`, a reset, an idle connection, the end."""
    given: list[tuple[str, int]] = []
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    message = b'event: message\ndata: {"seq":%d}\nid: %d\n\n'
    answers = [
        STREAM + b"id: 5\nretry: 1\n\n" + message % (6, 6) + b'event: message\ndata: {"seq":7}\nid: 7\n',  # not whole
        STREAM + b"id: 6\nretry: 1\n\n: alive\n\n" + message % (7, 7) + b": idle\n\n",
        STREAM + b"id: 7\nretry: 1\n\n",
        refusal,
        STREAM + b'event: reset\ndata: {"last_seq": 3}\nid: 3\nretry: 1\n\n',
        OVER,
    ]
    async with playing(*answers, hang=b": idle\n\n") as played:
        status = await follow(
            f"http://127.0.0.1:{played.port}", "x", "t", None, lambda *event: given.append(event), idle=0.5
        )
    at, ids = zip(*played.asked, strict=True)
    assert (status, ids) == (404, ("", "6", "7", "7", "7", "3"))
    assert given == [("message", 6), ("message", 7), ("reset", 3)]
    assert at[2] - at[1] > 0.5  # nothing came for so long
    assert at[4] - at[3] >= 1


async def go_on_from_the_first_frame(follow: Follow) -> None:
    """A client that was cut off before its first message does not begin anew."""
    async with playing(STREAM + b"id: 5\nretry: 1\n\n", OVER) as played:
        await follow(f"http://127.0.0.1:{played.port}", "x", "t", None, lambda *event: None)
    assert [id_ for _, id_ in played.asked] == ["", "5"]
