"""What happens, as it happens: the messages of a conversation, and which conversations have new ones."""

import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from dependencies import Auth, CurrentSession, services_of
from models.conversation import Message, Moved
from services.live_conversations import listen
from tristore.http.event_stream import EventStream, documented_events
from tristore.http.parameters import LastEventId
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import bearer_token
from tristore.live.hints import Hint
from tristore.live.listeners import Listener

router = PrefixedRouter(within="/events", tags=["conversations"])


async def get_listener(
    auth: Auth,
    who: CurrentSession,
    request: Request,
    conversation_id: uuid.UUID,
    last_event_id: LastEventId = None,
) -> AsyncIterator[Listener]:
    """A listener to a conversation of the caller, until the response has ended. Raises NotAuthenticated, NotFound,
    TooManyRequests, Overloaded."""
    live, verify = services_of(request).live, partial(auth.authenticate, bearer_token(request))
    async with listen(live, who, verify, conversation_id, after=last_event_id) as listener:
        yield listener


async def get_listener_to_all(auth: Auth, who: CurrentSession, request: Request) -> AsyncIterator[Listener]:
    """A listener to all conversations of the caller. Raises NotAuthenticated, TooManyRequests, Overloaded."""
    hints, verify = services_of(request).hints, partial(auth.authenticate, bearer_token(request))
    async with listen(hints, who, verify) as listener:
        yield listener


@router.get(
    "/conversations/{conversation_id}/events",
    status_code=200,
    response_class=EventStream,
    summary="Messages as they come, as server-sent events: from now on, or after the one with id `Last-Event-ID`",
    responses=documented_events("message", Message) | problems(404, 429),
)
async def events(request: Request, listener: Annotated[Listener, Depends(get_listener)]) -> EventStream:
    encode = partial(Message.model_dump_json, ensure_ascii=True)
    return EventStream(services_of(request).live, listener, "message", encode)


@router.get(
    "/events",
    status_code=200,
    response_class=EventStream,
    summary="Which conversations have new messages, as server-sent events: first how it stands, then what moves",
    responses=documented_events("moved", Moved, has_ids=False) | problems(429),
)
async def hints(request: Request, listener: Annotated[Listener, Depends(get_listener_to_all)]) -> EventStream:
    def encode(hint: Hint) -> str:
        return Moved.model_validate({"conversation_id": hint.key, "last_seq": hint.seq}).model_dump_json()

    return EventStream(services_of(request).hints, listener, "moved", encode)
