"""Who may follow what of conversations: one of them, or hints at which of them have new messages."""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from models.session import SignedIn
from repositories.conversation_repo import MESSAGES
from services.effects import session_aggregate
from tristore.live.listeners import E, Listener, Listeners


def listen(
    live: Listeners[E],
    who: SignedIn,
    verify: Callable[[], Awaitable[object]],
    *conversation: uuid.UUID,
    after: int | None = None,
) -> AbstractAsyncContextManager[Listener]:
    """A listener to one conversation or to all, for what comes after number `after`, or from now on. `verify` raises
    NotAuthenticated once the session has ended. Raises NotFound, TooManyRequests, Overloaded, StoreUnavailable."""
    name, doubts = MESSAGES.name(who.user_id, *conversation), [session_aggregate(who.session_id)]
    return live.listen(name, caller=str(who.user_id), doubts=doubts, verify=verify, after=after)
