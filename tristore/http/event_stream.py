"""What a listener follows, as server-sent events."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel

from tristore.http.bounded_stream import BoundedStream
from tristore.http.problems import Json, Responses
from tristore.live.listeners import Listener, Listeners
from tristore.live.source import Entry

E = TypeVar("E", bound=Entry)
RESET: Json = {
    "type": "object",
    "description": "the client was ahead, and begins anew after this number",
    "required": ["last_seq"],
    "properties": {"last_seq": {"type": "integer", "minimum": 0}},
}


def documented_events(event: str, model: type[BaseModel], *, has_ids: bool = True) -> Responses:
    """The `responses` of a route whose events have this type, and this model as their data: one without models inside.
    As FastAPI tells of events: the class EventStream itself names no media type, or FastAPI would tell of a plain
    string too."""
    schema = _item(event, model.model_json_schema(), has_ids)
    if has_ids:
        schema = {"oneOf": [schema, _item("reset", RESET, has_ids)]}
    return {200: {"content": {"text/event-stream": {"itemSchema": schema}}}}


def _item(event: str, content: Json, has_id: bool) -> Json:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    number = {"type": "string", "pattern": "^[0-9]+$", "description": "the entry's number, for `Last-Event-ID`"}
    fields = ({"id": number} if has_id else {}) | {"event": {"const": event}, "data": data}
    return {"type": "object", "required": list(fields), "properties": fields}


class EventStream(BoundedStream):
    def __init__(self, live: Listeners[E], listener: Listener, event: str, encode: Callable[[E], str]) -> None:
        """`event`: the type of the events. `encode` gives the data of an event as ASCII text: many clients take
        U+2028, U+2029 and U+0085 for the end of a line."""
        self._live = live
        headers = {"X-Accel-Buffering": "no"}  # or nginx would hold events back
        super().__init__(_encoded(live, listener, event, encode), "text/event-stream", headers)

    def on_cut_off(self) -> None:
        self._live.counts["cut_off"] += 1


def _opening(live: Listeners[E], listener: Listener) -> bytes:
    """The first frame. Its id is where the stream begins: a client that is cut off before the first event resumes
    there. Without data it is no event, so that only clients which were ahead are told of one."""
    told = {"event": "reset", "data_str": json.dumps({"last_seq": listener.last})} if listener.ahead else {}
    return format_sse_event(
        id=str(listener.last) if live.has_ids else None, retry=round(live.retry_seconds * 1000), **told
    )


async def _encoded(
    live: Listeners[E], listener: Listener, event: str, encode: Callable[[E], str]
) -> AsyncGenerator[bytes, None]:
    yield _opening(live, listener)
    async with aclosing(live.follow(listener)) as entries:
        async for entry in entries:
            if entry is None:
                yield KEEPALIVE_COMMENT
            else:
                id_ = str(entry.seq) if live.has_ids else None
                yield format_sse_event(id=id_, event=event, data_str=encode(entry))
