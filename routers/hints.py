"""Which of the caller's conversations have new messages, as it happens."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from dependencies import Auth, CurrentSession, services_of
from models.conversation import Moved
from services.live_conversations import listen
from tristore.http.event_stream import EventStream, documented_events
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import bearer_token
from tristore.live.hints import Hint, HintService
from tristore.live.listeners import Listener

router = PrefixedRouter(prefix="/events", tags=["conversations"])


async def get_hints(request: Request) -> HintService:
    return services_of(request).hints


Hints = Annotated[HintService, Depends(get_hints)]


async def get_listener(hints: Hints, auth: Auth, who: CurrentSession, request: Request) -> AsyncIterator[Listener]:
    """A listener to all conversations of the caller, until the response has ended. Raises NotAuthenticated,
    TooManyRequests, Overloaded."""
    async with listen(hints, who, partial(auth.authenticate, bearer_token(request))) as listener:
        yield listener


@router.get(
    "",
    status_code=200,
    response_class=EventStream,
    summary="Which conversations have new messages, as server-sent events: first how it stands, then what moves",
    responses=documented_events("moved", Moved, has_ids=False) | problems(429),
)
async def hints(hints: Hints, listener: Annotated[Listener, Depends(get_listener)]) -> EventStream:
    return EventStream(hints, listener, "moved", _encoded)


def _encoded(hint: Hint) -> str:
    return Moved.model_validate({"conversation_id": hint.key, "last_seq": hint.seq}).model_dump_json()
