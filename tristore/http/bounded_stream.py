"""Answers that come in pieces, for clients that may be slow."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Protocol

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send


class Pieces(Protocol):
    """What an asynchronous generator has, too."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


log = structlog.get_logger("tristore.http")


class BoundedStream(StreamingResponse):
    """Ends early, and so closes the connection, when the client takes nothing for LIVE_SEND_SECONDS. A piece is made
    only when the client has taken most of those before: what waits in memory is some pieces, so make them small."""

    def __init__(self, pieces: Pieces, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        """`pieces` is closed at the end, whichever way that comes."""
        self._pieces = pieces
        super().__init__(pieces, headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds: float = scope["app"].state.settings.live_send_seconds

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await send(message)
            except TimeoutError:
                raise _Stuck from None

        try:
            async with aclosing(self._pieces):
                await super().__call__(scope, receive, send_in_time)
        except _Stuck:
            self.on_cut_off()

    def on_cut_off(self) -> None:
        """Tell of it."""
        log.warning("reader_cut_off")


class _Stuck(Exception):
    """The client takes nothing."""
