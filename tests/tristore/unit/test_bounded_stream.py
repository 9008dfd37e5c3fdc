"""What becomes of an answer in pieces when its reader is slow, or takes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace

from starlette.types import Message, Receive, Scope, Send

from tristore.http.bounded_stream import BoundedStream
from tristore.testing.raw_http import Seen, connection, serving, until

SECONDS = 0.2
ENOUGH = 64
"""Megabytes, more than any kernel buffers for a connection."""


class Pieces:
    def __init__(self, count: int, size: int = 1) -> None:
        self._count, self._piece = count, b"x" * size
        self.are_closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self._count):
                yield self._piece
        finally:
            self.are_closed = True


def app_of(pieces: Pieces) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    state = SimpleNamespace(settings=SimpleNamespace(live_send_seconds=SECONDS))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = SimpleNamespace(state=state)
        await BoundedStream(aiter(pieces), "text/plain")(scope, receive, send)

    return app


async def test_the_connection_of_a_reader_who_takes_nothing_is_ended() -> None:
    seen, pieces = Seen(), Pieces(ENOUGH, 2**20)
    async with serving(app_of(pieces), seen), connection(seen) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # that of a socket has it
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: len(seen.state.connections) == 1)
        await until(lambda: not seen.state.connections)
        assert pieces.are_closed


async def test_a_reader_who_takes_a_little_at_a_time_gets_all() -> None:
    sent: list[Message] = []

    async def send_slowly(message: Message) -> None:
        await asyncio.sleep(SECONDS / 2)
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    pieces = Pieces(4)
    await app_of(pieces)({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send_slowly)
    assert b"".join(message.get("body", b"") for message in sent) == b"xxxx"
    assert sent[-1]["more_body"] is False
    assert pieces.are_closed
