"""A TCP proxy between an app and a store: passes, delays, cuts, swallows, holds back what is sent, loses answers."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tristore.embedded.servers import Store

DECISIVE: dict[Store, bytes] = {"postgresql": b"COMMIT;", "redis": b"EVALSHA", "mongodb": b"writeConcern"}
"""What a write has in it. `BEGIN ISOLATION LEVEL READ COMMITTED;` is none."""

LINGER_SECONDS = 2


@dataclass(eq=False)
class Link:
    """A connection of the app, and the one to the store that belongs to it."""

    app: asyncio.StreamWriter
    store: asyncio.StreamWriter
    share: float
    """Of the latency."""
    deaf: bool = False
    """Whether the app hears nothing more on it."""
    left: float = math.inf
    """So many bytes the app still hears; then the connection is cut."""


class Proxy:
    """Faults are switched while connections are open. `hold` keeps the app's next bytes back until `release`, even when
    the app has hung up meanwhile: the write that lands late. What contains `lose_answer_to` passes, and its answer does
    not: the write of which nobody knows whether it happened. With `hide_ends` the app does not see that the store has
    ended a connection, until it sends something on it. `share` is drawn by each connection: of the latency,
    seconds each way, it takes so much. `cut_after` too: after so many bytes of answers it is cut."""

    def __init__(self, port: int, share: Callable[[], float] = lambda: 1.0) -> None:
        self._target = port
        self._share = share
        self.cut_after: Callable[[], float] = lambda: math.inf
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._released.set()
        self._matching = b""
        self.held = 0
        self.lose_answer_to = b""
        self.lost = 0
        self.latency = 0.0
        self.black_hole = False
        self.hide_ends = False

    @property
    def port(self) -> int:
        assert self._server
        return int(self._server.sockets[0].getsockname()[1])

    def hold(self, matching: bytes) -> None:
        """Hold back what contains these bytes, and all that follows on its connection."""
        self._matching = matching
        self.held = 0
        self._released.clear()

    def hold_no_more(self) -> None:
        """Let new bytes pass, while what is held stays held."""
        self._matching = b""

    def release(self) -> None:
        self.hold_no_more()
        self._released.set()

    def reset(self) -> None:
        """Cut every open connection."""
        for link in self._links:
            link.app.transport.abort()
            link.store.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            upstream, to_store = await asyncio.open_connection("127.0.0.1", self._target)
            link = Link(writer, to_store, self._share(), left=self.cut_after())
            self._links.add(link)
            tasks = [asyncio.create_task(self._ask(link, reader)), asyncio.create_task(self._answer(link, upstream))]
            self._tasks.update(tasks)
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)
            self._links.discard(link)
        writer.close()  # also when the store refused

    async def _ask(self, link: Link, reader: asyncio.StreamReader) -> None:
        late = False
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await self._passing(link, reader):
                if self._matching and self._matching in data:
                    self.held += 1
                    await self._released.wait()
                    late = True
                if self.lose_answer_to and self.lose_answer_to in data:
                    self.lost += not link.deaf
                    link.deaf = True
                link.store.write(data)
                await link.store.drain()
            if late:
                await asyncio.sleep(LINGER_SECONDS)  # a server that learns at once that its client has gone may give up
        with suppress(OSError):
            link.store.close()

    async def _answer(self, link: Link, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await self._passing(link, reader):
                if not link.deaf:
                    link.app.write(data if len(data) <= link.left else data[: int(link.left)])
                    await link.app.drain()
                link.left -= len(data)
                if link.left <= 0:
                    self.cuts += 1
                    link.store.transport.abort()
                    break
        with suppress(OSError):
            if not self.hide_ends:
                link.app.close()

    async def _passing(self, link: Link, reader: asyncio.StreamReader) -> bytes:
        """The next bytes that come through, when they do; none at the end."""
        while data := await reader.read(65536):
            if self.latency:
                await asyncio.sleep(self.latency * link.share)
            if not self.black_hole:
                return data
        return b""


@asynccontextmanager
async def proxy_to(port: int, share: Callable[[], float] = lambda: 1.0) -> AsyncIterator[Proxy]:
    proxy = Proxy(port, share)
    proxy._server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    try:
        yield proxy
    finally:
        proxy.release()
        proxy.reset()
        proxy._server.close()
        for task in proxy._tasks:
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
