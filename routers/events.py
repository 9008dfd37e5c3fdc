"""A conversation's messages as they come."""

import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from dependencies import Auth, CurrentSession, services_of
from models.conversation import Message
from services.live_conversations import listen
from tristore.http.event_stream import EventStream, documented_events
from tristore.http.parameters import LastEventId
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import bearer_token
from tristore.live.listeners import Listener, LiveService

router = PrefixedRouter(prefix="/conversations", tags=["conversations"])


async def get_live(request: Request) -> LiveService[Message]:
    return services_of(request).live


Live = Annotated[LiveService[Message], Depends(get_live)]


async def get_listener(
    live: Live,
    auth: Auth,
    who: CurrentSession,
    request: Request,
    conversation_id: uuid.UUID,
    last_event_id: LastEventId = None,
) -> AsyncIterator[Listener]:
    """A listener to a conversation of the caller, until the response has ended. Raises NotAuthenticated, NotFound,
    TooManyRequests, Overloaded."""
    verify = partial(auth.authenticate, bearer_token(request))
    async with listen(live, conversation_id, who, verify, last_event_id) as listener:
        yield listener


@router.get(
    "/{conversation_id}/events",
    status_code=200,
    response_class=EventStream,
    summary="Messages as they come, as server-sent events: from now on, or after the one with id `Last-Event-ID`",
    responses=documented_events("message", Message) | problems(404, 429),
)
async def events(live: Live, listener: Annotated[Listener, Depends(get_listener)]) -> EventStream:
    return EventStream(live, listener, "message", partial(Message.model_dump_json, ensure_ascii=True))
