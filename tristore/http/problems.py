"""Errors as RFC 9457 problem details: the one place that knows HTTP statuses."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
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
from tristore.http.headers import sends

Json: TypeAlias = dict[str, Any]
RETRY_AFTER = {"Retry-After": "1"}  # seconds: probes and breakers look again once a second


class Answer(NamedTuple):
    """How an error is told. `fields` and `headers` get the error, and return what the answer has besides."""

    status: int
    title: str
    fields: Callable[..., Mapping[str, object]] = lambda error: {}
    headers: Callable[..., Mapping[str, str]] = lambda error: {}


Answers = Mapping[type[TristoreError], Answer]
"""An error without an answer of its own gets that of its nearest base."""

ANSWERS: Answers = {
    InvalidInput: Answer(
        422, "Invalid input", lambda error: {"errors": [{"field": error.field, "message": str(error)}]}
    ),
    NotAuthenticated: Answer(401, "Not authenticated", headers=lambda error: {"WWW-Authenticate": "Bearer"}),
    NotAllowed: Answer(403, "Not allowed"),
    NotFound: Answer(404, "Not found"),
    Conflict: Answer(409, "Conflict"),
    AlreadyTaken: Answer(409, "Conflict", lambda error: {"field": error.field}),
    InProgress: Answer(409, "Conflict", headers=lambda error: RETRY_AFTER),
    TooManyRequests: Answer(429, "Too many requests", headers=lambda error: {"Retry-After": str(error.seconds)}),
    Overloaded: Answer(503, "Service unavailable", headers=lambda error: RETRY_AFTER),
    StoreUnavailable: Answer(
        503, "Service unavailable", lambda error: {"store": error.store}, lambda error: RETRY_AFTER
    ),
    TristoreError: Answer(500, "Internal error"),
}
TITLES = {answer.status: answer.title for answer in ANSWERS.values()}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SCHEMAS = "#/components/schemas/{model}"

log = structlog.get_logger()


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. An answer leaves out what does not apply: `errors` is for 422, `field` for 409, `store` for 503."""

    type: str = Field(description="the kind of problem", json_schema_extra={"format": "uri-reference"})
    title: str = Field(description="the kind in words")
    status: int
    detail: str = Field(description="what is wrong with this request")
    instance: str = Field(description="the path that was asked")
    request_id: str | None = Field(description="finds the request in the server's log")
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

HEADERS_OF: Mapping[int, str] = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

Responses = dict[int | str, Json]
"""What FastAPI takes as the `responses` of a route."""


def problems(*statuses: int) -> Responses:
    """The `responses` of a route for these statuses, for the API's document."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> Json:
    meaning = MEANINGS.get(status) or f"{HTTPStatus(status).phrase}."
    title = TITLES.get(status, meaning.rstrip("."))
    example = {"type": "about:blank", "title": title, "status": status, "detail": meaning, "instance": "/path"}
    content = {"schema": {"$ref": SCHEMAS.format(model="Problem")}, "example": example | {"request_id": "0f3c9a"}}
    told = {"description": meaning, "content": {"application/problem+json": content}}
    return told | (sends(HEADERS_OF[status]) if status in HEADERS_OF else {})


def problem_schemas() -> Json:
    """What the document holds once for all operations."""
    problem = Problem.model_json_schema(ref_template=SCHEMAS)
    return {"Problem": problem, **problem.pop("$defs")}


def add_error_handlers(app: FastAPI, own: Answers | None = None) -> None:
    """Answer every error as application/problem+json with the request's id. `own` are the product's errors that need
    another status, title, fields or headers than their base."""
    answers = {**ANSWERS, **(own or {})}

    async def known(request: Request, error: Exception) -> Response:
        if isinstance(error, StoreUnavailable):
            log.warning("store_unavailable", store=error.store, reason=error.reason, cause=error.cause)
        status, title, fields, headers = next(answers[cls] for cls in type(error).__mro__ if cls in answers)
        return problem(request, status, title, str(error), headers(error), **fields(error))

    app.add_exception_handler(TristoreError, known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def problem(
    request: Request,
    status: int,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    /,
    **fields: object,
) -> Response:
    """An answer with this problem. `fields` are the members that only some problems have."""
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id"),
        **fields,
    }
    # ASCII only: a lone surrogate in the path or a field's name must not break the answer that reports it.
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": _field(item), "message": _message(item)} for item in error.errors()]
    fields = ", ".join(item["field"] for item in errors)
    return problem(request, 422, "Invalid input", f"Not valid: {fields}.", errors=errors)


def _field(item: Json) -> str:
    path = [str(part) for part in item["loc"] if part not in {"body", "query", "path", "header"}]
    return ".".join(path) or str(item["loc"][0])


def _message(item: Json) -> str:
    # pydantic quotes the input in some messages, and an input may be a secret.
    if item["type"].startswith("uuid"):
        return "must be a UUID"
    return str(item["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else error.headers
    return problem(request, error.status_code, error.detail, error.detail, headers)


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
