"""What is refused before a route is asked."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from fastapi import Request, Response
from fastapi._compat import field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Cookie, Form, Header, Path
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from tristore.errors import InvalidInput

ELSEWHERE = (Cookie, Header, Path)
"""What a parameter is that is not in the query."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
TWICE = "must not be sent twice"


@runtime_checkable
class Guard(Protocol):
    """A dependency that can be asked before its turn."""

    async def admit(self, request: Request) -> None:
        """Raises what the dependency would raise."""


class StrictRoute(APIRoute):
    """Refuses a query parameter that the route does not know, and one, or a field of a form, that is sent twice (422:
    nothing is silently ignored), and a body of another type than it reads, or with a coding (415). Guards are asked
    before that: whoever may not come in has nothing read or parsed, which FastAPI would do before it asks any
    dependency. A body is refused above the route's own size (413)."""

    max_body_bytes: int | None = None
    """None: as large as any may be (SizeBounds)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        handler = super().get_route_handler()
        guards = list(_guards(self.dependant))
        known = {
            field.alias: field_annotation_is_sequence(field.field_info.annotation)
            for field in get_flat_params(self.dependant)
            if not isinstance(field.field_info, ELSEWHERE)
        }
        types = _types(self) if self.body_field else ()
        fields: dict[str, Any] = getattr(self.body_field and self.body_field.field_info.annotation, "model_fields", {})
        single = [name for name, field in fields.items() if not field_annotation_is_sequence(field.annotation)]

        async def strict(request: Request) -> Response:
            if types or request.scope["query_string"]:
                for guard in guards:
                    await guard.admit(request)
                _refuse_unknown(request, known)
                if types:
                    _refuse_other(request, types)
            if types and self.max_body_bytes:
                request = _bounded(request, self.max_body_bytes)
            if types == FORMS:
                await _refuse_repeated(request, single)
            return await handler(request)

        return strict


def _guards(dependant: Dependant) -> Iterator[Guard]:
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for dependency in dependant.dependencies:
        yield from _guards(dependency)


def _refuse_unknown(request: Request, known: dict[str, bool]) -> None:
    """`known`: whether a parameter may be sent several times. Of any other the last one alone would count."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            raise InvalidInput(name, f"is not a parameter here; allowed: {', '.join(known) or 'none'}")
        if not known[name] and names.count(name) > 1:
            raise InvalidInput(name, TWICE)


def _types(route: APIRoute) -> tuple[str, ...]:
    return FORMS if route.body_field and isinstance(route.body_field.field_info, Form) else ("application/json",)


def _refuse_other(request: Request, types: tuple[str, ...]) -> None:
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_json = given.startswith("application/") and given.endswith("+json") and "application/json" in types
    if not (given in types or is_json) and (given or _has_body(request)):
        raise HTTPException(415, f"Send the body as {' or '.join(types)}.", {"Accept": ", ".join(types)})
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        headers = {"Accept": ", ".join(types), "Accept-Encoding": "identity"}  # RFC 9110, section 15.5.16
        raise HTTPException(415, "Send the body without a Content-Encoding: it is not decompressed.", headers)


async def _refuse_repeated(request: Request, single: list[str]) -> None:
    """Of a form: RFC 6749 wants it so of those of OAuth (section 3.2)."""
    with suppress(ClientDisconnect):  # FastAPI finds that too
        form = await request.form()
        for name in single:
            if len(form.getlist(name)) > 1:
                raise InvalidInput(name, TWICE)


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
