"""A client of server-sent events, on a raw connection: it can stop reading, and a thousand of them cost little."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

SELDOM: dict[str, Any] = {
    "poll_seconds": 60,
    "heartbeat_seconds": 60,
    "retry_seconds": 1,
    "verify_seconds": 1,
    "max_per_caller": 100,
    "max_listeners": 100,
}
"""For a service of streams whose poll and heartbeat do not come by themselves."""


@dataclass
class Event:
    id: int
    """Zero in a stream that has none."""
    type: str
    data: str
    at: float
    """When it arrived, by the monotonic clock."""

    @property
    def decoded(self) -> Any:
        """The data, which is JSON."""
        return json.loads(self.data)


@dataclass
class Stream:
    """What has come so far. `ended`: the server has ended the response. `cut`: the connection broke before that."""

    head: str
    opened_at: float = field(default_factory=time.monotonic)
    events: list[Event] = field(default_factory=list)
    comments: int = 0
    ended: bool = False
    cut: bool = False
    opening: dict[str, str] = field(default_factory=dict)
    """The fields of the first frame."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events]

    async def until(
        self, *, opened: bool = False, events: int = 0, comments: int = 0, over: bool = False, seconds: float = 10
    ) -> None:
        """Wait until so much has come, with `opened` the first frame, and with `over` until the stream is over. Raises
        TimeoutError."""
        async with asyncio.timeout(seconds):
            while (
                (opened and not self.opening)
                or len(self.events) < events
                or self.comments < comments
                or (over and not (self.ended or self.cut))
            ):
                self._news.clear()
                await self._news.wait()

    async def read(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        try:
            while size := int(await reader.readline(), 16):
                rest += (await reader.readexactly(size + 2))[:-2]
                *blocks, rest = rest.split(b"\n\n")
                for block in blocks:
                    self._take(block.decode())
                self._news.set()
            self.ended = True
        except (asyncio.IncompleteReadError, ValueError, OSError):
            self.cut = True
        finally:
            self._news.set()

    def _take(self, block: str) -> None:
        if block.startswith(":"):
            self.comments += 1
            return
        # As the clients do that take any of these for the end of a line.
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if not self.opening:
            assert {"retry"} <= fields.keys() <= {"id", "retry", "event", "data"}
            self.opening = fields
            return
        assert fields.keys() == {"event", "data"} | (self.opening.keys() & {"id"})
        self.events.append(Event(int(fields.get("id", 0)), fields["event"], fields["data"], time.monotonic()))


class NotOpened(AssertionError):
    """The server answers with something other than a stream: its head is the message."""

    @property
    def status(self) -> int:
        return int(str(self).split()[1])


async def connect(
    base: httpx.URL, path: str, headers: Mapping[str, str], after: int | None = None
) -> tuple[Stream, asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream, and read its head alone. Raises NotOpened."""
    reader, writer = await asyncio.open_connection(base.host, base.port)
    lines = [f"GET {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers.items())]
    if after is not None:
        lines.append(f"Last-Event-ID: {after}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if not head.startswith("http/1.1 200"):
        writer.close()
        raise NotOpened(head)
    return Stream(head), reader, writer


@asynccontextmanager
async def listening(
    base: httpx.URL, path: str, headers: Mapping[str, str], after: int | None = None
) -> AsyncIterator[Stream]:
    """Open a stream, and read it until the end of the block. Raises NotOpened."""
    stream, reader, writer = await connect(base, path, headers, after)
    task = asyncio.create_task(stream.read(reader))
    try:
        yield stream
    finally:
        task.cancel()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        await asyncio.gather(task, return_exceptions=True)
