"""A TCP proxy between an app and a store: passes, delays, cuts, swallows, holds what the app sends, loses an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

LINGER_SECONDS = 2


class Proxy:
    """Faults are switched while connections are open. `hold` keeps the app's next bytes back until `release`, even when
    the app has hung up meanwhile: the write that lands late."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._released.set()
        self._matching = b""
        self.held = 0
        self.lose_answer_to = b""
        """A request that contains these bytes passes, its answer does not, and its connection says nothing more."""
        self.lost = 0
        self.latency = 0.0
        self.black_hole = False

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
            for writer in link:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            upstream, to_store = await asyncio.open_connection("127.0.0.1", self._target)
            link = (writer, to_store)
            self._links.add(link)
            deaf = asyncio.Event()
            tasks = [
                asyncio.create_task(self._pump(reader, to_store, deaf, from_app=True)),
                asyncio.create_task(self._pump(upstream, writer, deaf, from_app=False)),
            ]
            self._tasks.update(tasks)
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)
            self._links.discard(link)
        writer.close()  # also when the store refused

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event, *, from_app: bool
    ) -> None:
        late = False
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.black_hole or (deaf.is_set() and not from_app):
                    continue
                if from_app and self.lose_answer_to and self.lose_answer_to in data:
                    self.lost += 1
                    deaf.set()
                    late = True
                if from_app and self._matching and self._matching in data:
                    self.held += 1
                    await self._released.wait()
                    late = True
                writer.write(data)
                await writer.drain()
            if late:
                await asyncio.sleep(LINGER_SECONDS)  # a server that learns at once that its client has gone may give up
        with suppress(OSError):
            writer.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
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
