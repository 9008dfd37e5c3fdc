"""The headers of answers that clients need, as the API's document tells of them."""

from typing import Annotated, TypeVar

from fastapi import Depends, Request, Response

Item = TypeVar("Item")

HEADERS: dict[str, dict[str, object]] = {
    "X-Request-Id": {
        "description": "Finds the request in the server's log. It is the client's own, where it sent one that fits.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
    },
    "Retry-After": {
        "description": "How many seconds to wait before the same request is sent again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "The scheme that is asked for.",
        "required": True,
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Accept": {
        "description": "The types of body that the route reads.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Where to read what the request has made.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "ETag": {
        "description": "Stands for the state that is shown here. Send it as `If-Match` or `If-None-Match`.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "True where an earlier request with this `Idempotency-Key` was served: nothing was done again.",
        "schema": {"type": "boolean"},
    },
}
"""One that is `required` is in each answer that names it."""


def sends(*names: str) -> dict[str, object]:
    """What a route's `responses` say of a status whose answers have these headers, as in
    `problems(404) | {201: sends("Location")}`. What follows from the status the document adds by itself."""
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


class Location:
    """Says in `Location` where to read what a request has made."""

    def __init__(self, request: Request, response: Response) -> None:
        self._root = request.scope.get("root_path", "")
        self._response = response

    def at(self, path: str, made: Item) -> Item:
        """`path` takes fields of what was made, as in `/things/{id}`. Returns what was made."""
        self._response.headers["Location"] = self._root + path.format_map(vars(made))
        return made


async def get_location(request: Request, response: Response) -> Location:
    return Location(request, response)


Located = Annotated[Location, Depends(get_location)]
