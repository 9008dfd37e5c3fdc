"""One structured event for each request that concerns security: who tried what, on whom, from where, how it ended.

Its logger is called `security`, and LOG_LEVEL does not silence it. Routes without an event of their own are noted where
they refuse somebody.
"""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import structlog
from starlette.requests import HTTPConnection
from starlette.types import Scope

from tristore.http.requests import REFUSED, WHO, address_of

EVENT = "security_event"
REFUSALS = {401: "not_authenticated", 403: "not_allowed", 429: "too_many_requests"}
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])

log = structlog.get_logger("security")


def security_event(name: str) -> Callable[[Endpoint], Endpoint]:
    """Note every request to a route as such an event. It stands below the route's own decorator. The service adds whom
    the event concerns, and what else is known: `structlog.contextvars.bind_contextvars(user=...)`."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, EVENT, name)
        return endpoint

    return mark


def event_of(endpoint: object) -> str | None:
    event: str | None = getattr(endpoint, EVENT, None)
    return event


def _user_in_path(scope: Scope) -> dict[str, str]:
    """Whose account it is also where nothing came of it."""
    try:
        return {"user": str(UUID(scope["path_params"]["user_id"]))}
    except (KeyError, ValueError):  # none, or not an id: what a client writes into a path stays out of the log
        return {}


def note(scope: Scope, route: str | None, status: int) -> None:
    """Log the event of a request that has ended, if it has one."""
    event = event_of(getattr(scope.get("route"), "endpoint", None)) or REFUSALS.get(status)
    if event is None:
        return
    who = {name: str(id_) for name, id_ in scope.get(WHO, {}).items()} | _user_in_path(scope)
    outcome = "failed" if status >= 500 else "refused" if status >= 400 or REFUSED in scope else "done"
    address = address_of(HTTPConnection(scope))
    log.info(event, outcome=outcome, status=status, method=scope["method"], route=route, address=address, **who)
