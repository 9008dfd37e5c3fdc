"""Messages as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Message as ASGIMessage
from starlette.types import Send

from models.conversation import Message
from tristore.live.listeners import Listener, LiveService

EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "the message's number, for `Last-Event-ID`"},
        "event": {"const": "message"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Message"},
        },
    },
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}}
"""As FastAPI tells of events. The class itself names no media type, or FastAPI would tell of a plain string too."""


class EventStream(StreamingResponse):
    """Ends early, and so closes the connection, for a client that takes nothing for too long."""

    def __init__(self, live: LiveService, listener: Listener) -> None:
        self._live = live
        self._events = _encoded(live.follow(listener))
        headers = {"X-Accel-Buffering": "no"}  # or nginx would hold events back
        super().__init__(self._events, headers=headers, media_type="text/event-stream")

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: ASGIMessage) -> None:
            try:
                async with asyncio.timeout(self._live.send_seconds):
                    await send(message)
            except TimeoutError:
                raise _Stuck from None

        try:
            async with aclosing(self._events):
                await super().stream_response(send_in_time)
        except _Stuck:
            self._live.counts["cut_off"] += 1


class _Stuck(Exception):
    """The client takes nothing."""


async def _encoded(messages: AsyncGenerator[Message | None, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(messages):
        async for message in messages:
            if message is None:
                yield KEEPALIVE_COMMENT
            else:
                yield format_sse_event(id=str(message.seq), event="message", data_str=message.model_dump_json())
