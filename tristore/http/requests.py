"""What a request says of where it comes from, and what is noted of it for its answer."""

import uuid

from starlette.requests import HTTPConnection

from tristore.stores.replica import caller

WHO, REFUSED = "who", "refused"
LONGEST_CLIENT = 200


def address_of(request: HTTPConnection) -> str:
    """The address of the peer, or what a trusted proxy says of it."""
    return request.client.host if request.client else "unknown"


def client_of(request: HTTPConnection) -> str:
    """What the client calls itself."""
    return "".join(filter(str.isprintable, request.headers.get("User-Agent", "")))[:LONGEST_CLIENT]


def bearer_token(request: HTTPConnection) -> str:
    """The token that the request came with. It is empty if the request came with none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.lstrip(" ") if scheme.lower() == "bearer" else ""  # RFC 9110, 11.6.2: one space or more


def mark_who(request: HTTPConnection, user_id: uuid.UUID, session_id: uuid.UUID) -> None:
    """Let the log say who sent the request, and with which session, and PostgreSQL's replica who reads."""
    request.scope[WHO] = {"actor": user_id, "session": session_id}
    caller.set(user_id)


def mark_replayed(request: HTTPConnection) -> None:
    """Let the answer, be it an error, say that it is that to an earlier request."""
    request.scope["replayed"] = True


def mark_refused(request: HTTPConnection) -> None:
    """Let the log say that nothing was done, where the answer is no error: a page that shows its form again."""
    request.scope[REFUSED] = True
