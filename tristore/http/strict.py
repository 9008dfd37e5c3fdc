"""What is refused before a route is asked."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Protocol, runtime_checkable

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Cookie, Form, Header, Path
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from tristore.errors import InvalidInput

ELSEWHERE = (Cookie, Header, Path)
"""What a parameter is that is not in the query."""


@runtime_checkable
class Guard(Protocol):
    """A dependency that can be asked before its turn."""

    async def admit(self, request: Request) -> None:
        """Raises what the dependency would raise."""


class StrictRoute(APIRoute):
    """Refuses a query parameter that the route does not know (422: a typo is not silently ignored), and a body of
    another type than it reads (415). Guards are asked before that: whoever may not come in has nothing read or parsed,
    which FastAPI would do before it asks any dependency. A body is refused above the route's own size (413)."""

    max_body_bytes: int | None = None
    """None: as large as any may be (SizeBounds)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        handler = super().get_route_handler()
        guards = list(_guards(self.dependant))
        known = [
            field.alias for field in get_flat_params(self.dependant) if not isinstance(field.field_info, ELSEWHERE)
        ]
        types = _types(self) if self.body_field else ()

        async def strict(request: Request) -> Response:
            if types or request.scope["query_string"]:
                for guard in guards:
                    await guard.admit(request)
                _refuse_unknown(request, known)
                if types:
                    _refuse_other(request, types)
            if types and self.max_body_bytes:
                request = _bounded(request, self.max_body_bytes)
            return await handler(request)

        return strict


def _guards(dependant: Dependant) -> Iterator[Guard]:
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for dependency in dependant.dependencies:
        yield from _guards(dependency)


def _refuse_unknown(request: Request, known: list[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(name, f"is not a parameter here; allowed: {', '.join(known) or 'none'}")


def _types(route: APIRoute) -> tuple[str, ...]:
    if route.body_field and isinstance(route.body_field.field_info, Form):
        return "application/x-www-form-urlencoded", "multipart/form-data"
    return ("application/json",)


def _refuse_other(request: Request, types: tuple[str, ...]) -> None:
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_json = given.startswith("application/") and given.endswith("+json") and "application/json" in types
    if given in types or is_json or not (given or _has_body(request)):
        return
    raise HTTPException(415, f"Send the body as {' or '.join(types)}.", {"Accept": ", ".join(types)})


def bounded_route(max_body_bytes: int) -> type[StrictRoute]:
    return type("BoundedRoute", (StrictRoute,), {"max_body_bytes": max_body_bytes})


def _bounded(request: Request, most: int) -> Request:
    too_large = HTTPException(413, f"The body of this request may have {most} bytes.")
    if int(request.headers.get("Content-Length", "0")) > most:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most:
            raise too_large
        return message

    return Request(request.scope, receive)


def _has_body(request: Request) -> bool:
    return request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in request.headers
