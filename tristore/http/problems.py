"""Errors as RFC 9457 problem details: the one place that knows HTTP statuses."""

import json
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from tristore.errors import (
    AlreadyTaken,
    Conflict,
    InProgress,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    StoreUnavailable,
    TooManyRequests,
    TristoreError,
)

STATUSES: dict[type[TristoreError], tuple[int, str]] = {
    InvalidInput: (422, "Invalid input"),
    NotAuthenticated: (401, "Not authenticated"),
    NotAllowed: (403, "Not allowed"),
    NotFound: (404, "Not found"),
    Conflict: (409, "Conflict"),
    TooManyRequests: (429, "Too many requests"),
    Overloaded: (503, "Service unavailable"),
    StoreUnavailable: (503, "Service unavailable"),
    TristoreError: (500, "Internal error"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SCHEMAS = "#/components/schemas/{model}"
RETRY_AFTER = {"Retry-After": "1"}  # seconds: probes and breakers look again once a second

log = structlog.get_logger()


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. What is optional is left out where it does not apply: `errors` is for 422, `field` for 409, `store` for
    503."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    errors: list[FieldProblem] | None = None
    field: str | None = None
    store: str | None = None


MEANINGS = {
    400: "The body cannot be read.",
    401: "No token, or not a valid one.",
    403: "The caller may not do this.",
    404: "There is no such object, or it is not the caller's.",
    409: "The request contradicts what is stored; `field` names a value that is taken.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    422: "The request is not valid; `errors` names its fields.",
    429: "Too many requests; `Retry-After` says how many seconds to wait.",
    431: "The headers are too large.",
    503: "A database is not available at the moment; `Retry-After` says how many seconds to wait.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these statuses, for the API's document."""
    return {status: _documented(status, MEANINGS[status]) for status in statuses}


def _documented(status: int, meaning: str) -> dict[str, Any]:
    title = dict(STATUSES.values()).get(status, meaning.rstrip("."))
    example = {"type": "about:blank", "title": title, "status": status, "detail": meaning, "instance": "/users/me"}
    content = {"schema": {"$ref": SCHEMAS.format(model="Problem")}, "example": example | {"request_id": "0f3c9a"}}
    return {"description": meaning, "content": {"application/problem+json": content}}


def problem_schemas() -> dict[str, Any]:
    """What the document holds once for all operations."""
    problem = Problem.model_json_schema(ref_template=SCHEMAS)
    return {"Problem": problem, **problem.pop("$defs")}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error as application/problem+json with the request's id."""
    app.add_exception_handler(TristoreError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def problem(request: Request, status: int, title: str, detail: str, /, **more: Any) -> Response:
    headers = more.pop("headers", None)
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id"),
        **more,
    }
    # ASCII only: a lone surrogate in the path or a field's name must not break the answer that reports it.
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, TristoreError)
    status, title = next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
    more: dict[str, Any] = {}
    if isinstance(error, StoreUnavailable):
        log.warning("store_unavailable", store=error.store, reason=error.reason, cause=error.cause)
        more = {"store": error.store, "headers": RETRY_AFTER}
    elif isinstance(error, InProgress | Overloaded):
        more = {"headers": RETRY_AFTER}
    elif isinstance(error, AlreadyTaken):
        more = {"field": error.field}
    elif isinstance(error, InvalidInput):
        more = {"errors": [{"field": error.field, "message": str(error)}]}
    elif isinstance(error, TooManyRequests):
        more = {"headers": {"Retry-After": str(error.seconds)}}
    elif isinstance(error, NotAuthenticated):
        more = {"headers": {"WWW-Authenticate": "Bearer"}}
    return problem(request, status, title, str(error), **more)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": _field(item), "message": _message(item)} for item in error.errors()]
    fields = ", ".join(item["field"] for item in errors)
    return problem(request, 422, "Invalid input", f"Not valid: {fields}.", errors=errors)


def _field(item: dict[str, Any]) -> str:
    path = [str(part) for part in item["loc"] if part not in {"body", "query", "path", "header"}]
    return ".".join(path) or str(item["loc"][0])


def _message(item: dict[str, Any]) -> str:
    # pydantic quotes the input in some messages, and an input may be a secret.
    if item["type"].startswith("uuid"):
        return "must be a UUID"
    return str(item["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else error.headers
    return problem(request, error.status_code, error.detail, error.detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    # The router names the methods of the first route with this path only.
    scope = {name: request.scope[name] for name in ("type", "path", "root_path")}
    routes = request.app.routes
    return [method for method in METHODS if any(_takes(route, scope | {"method": method}) for route in routes)]


def _takes(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is Match.FULL


def internal_error(scope: Scope) -> Response:
    """The answer to what nobody expected."""
    return problem(Request(scope), 500, "Internal error", "Unexpected; the log has the cause under this request_id.")
