"""Requests that depend on the state that a client knows: `If-Match` and `If-None-Match` (RFC 9110, section 13)."""

import re
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import WithJsonSchema

from tristore.errors import InvalidInput
from tristore.http.compression import SMALLEST_BYTES
from tristore.http.headers import sends
from tristore.http.problems import Json
from tristore.tags import Tags

# A proxy that compresses an answer may put W/ before its tag. It stands for the same state.
TAG = r'(?:W/)?"([!#-~]*)"'
FIELD = r'^(\*|(,[ \t]*)*(W/)?"[!#-~]*"([ \t]*,([ \t]*(W/)?"[!#-~]*")?)*)$'
"""Elements of a list may be empty (RFC 9110, section 5.6.1.2)."""


class HasVersion(Protocol):
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=HasVersion)
TagsField = Annotated[str, WithJsonSchema({"type": "string", "pattern": FIELD})]


async def get_tags(
    request: Request,
    field: Annotated[
        TagsField | None,
        Header(
            alias="If-Match",
            description="The `ETag` of what was read. When it has changed since, nothing is done: 412",
        ),
    ] = None,
) -> Tags:
    """Raises InvalidInput."""
    return None if field is None else tags_in("If-Match", ", ".join(request.headers.getlist("If-Match")))


IfMatch = Annotated[Tags, Depends(get_tags)]

IF_NONE_MATCH: Json = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of what was read. When it is still the same: 304 without a body",
    "schema": {"type": "string", "pattern": FIELD},
}
UNLESS_KNOWN: Json = {
    "responses": {200: sends("ETag"), 304: {"description": "It is what the client has"} | sends("ETag")},
    "openapi_extra": {"parameters": [IF_NONE_MATCH]},
}
"""What the API's document says of a route that answers by `unless_known`. A parameter of FastAPI's would cost each
request."""


def tags_in(name: str, field: str) -> Tags:
    """The tags in this header's field. Raises InvalidInput."""
    if not re.fullmatch(FIELD, field):
        raise InvalidInput(name, "must be * or a list of tags in quotes, as `ETag` has them")
    return None if field == "*" else frozenset(re.findall(TAG, field))


def tagged(response: Response, thing: T, prefix: str = "") -> T:
    """The thing itself; its tag goes into the answer's headers."""
    response.headers["ETag"] = f'"{prefix}{thing.version}"'
    return thing


def unless_known(request: Request, body: bytes, tag: str) -> Response:
    """The JSON with its tag; 304 without it when the client has it. Raises InvalidInput."""
    # A large one may be compressed: its tag then stands for what it says, and not for its bytes.
    weak = "W/" if len(body) >= SMALLEST_BYTES else ""
    if _knows(request, tag):
        response = Response(status_code=304, headers={"Vary": "Accept-Encoding"} if weak else None)
    else:
        response = Response(body, media_type="application/json")
    response.raw_headers.append((b"etag", f'{weak}"{tag}"'.encode()))  # `headers` would cost a microsecond
    return response


def _knows(request: Request, tag: str) -> bool:
    # To ask `request.headers` for what is not there costs four times as much.
    fields = [value for name, value in request.scope["headers"] if name == b"if-none-match"]
    if not fields:
        return False
    known = tags_in("If-None-Match", b", ".join(fields).decode("latin-1"))
    return known is None or tag in known
