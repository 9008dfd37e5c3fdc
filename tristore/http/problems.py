"""Errors as RFC 9457 problem details: the one place that knows HTTP statuses."""

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

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
    StaleTag,
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
    fields: Callable[..., Mapping[str, object]] = lambda error: {}
    headers: Callable[..., Mapping[str, str]] = lambda error: {}


Answers = Mapping[type[TristoreError], Answer]
"""An error without an answer of its own gets that of its nearest base."""

ANSWERS: Answers = {
    InvalidInput: Answer(422, lambda error: {"errors": [{"field": error.field, "message": str(error)}]}),
    NotAuthenticated: Answer(401, headers=lambda error: {"WWW-Authenticate": "Bearer"}),
    NotAllowed: Answer(403),
    NotFound: Answer(404),
    Conflict: Answer(409),
    AlreadyTaken: Answer(409, lambda error: {"field": error.field}),
    InProgress: Answer(409, headers=lambda error: RETRY_AFTER),
    StaleTag: Answer(412, headers=lambda error: {"ETag": f'"{error.current}"'}),
    TooManyRequests: Answer(429, headers=lambda error: {"Retry-After": str(error.seconds)}),
    Overloaded: Answer(503, headers=lambda error: RETRY_AFTER),
    StoreUnavailable: Answer(503, lambda error: {"store": error.store}, lambda error: RETRY_AFTER),
    TristoreError: Answer(500),
}
KINDS = {
    413: "content-too-large",
    414: "uri-too-long",
    422: "invalid-input",
    500: "internal-error",
    503: "overloaded",
}
"""Kinds of problems that have neither the name of an error's class nor that of their status: Python's names of these
differ by its version."""
TYPES = "/problems/"
"""Where the `type` of a problem begins; docs/errors.md explains each. It is a name, and nothing is served there."""
OAUTH_ERRORS = {
    401: "invalid_grant",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
}
"""`error` of RFC 6749 (sections 4.1.2.1 and 5.2) by status. For any other one it is invalid_request."""
MOST_ERRORS, MOST_OF_A_NAME = 20, 100
"""So many errors of one body are told, and so many characters of a field's name: a client chooses both."""
OF_A_PATH = "/%:@!$&'()*+,;=~"
"""What may stand in a path, beside letters and digits (RFC 3986, section 3.3)."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SCHEMAS = "#/components/schemas/{model}"

log = structlog.get_logger()


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. An answer leaves out what does not apply: `errors` is for 422, `field` for 409, `store` for 503,
    `error` for the token endpoint."""

    type: str = Field(
        description="the kind of problem, as docs/errors.md explains it", json_schema_extra={"format": "uri-reference"}
    )
    title: str = Field(description="the phrase of the status")
    status: int
    detail: str = Field(description="what is wrong with this request")
    instance: str = Field(description="the path that was asked", json_schema_extra={"format": "uri-reference"})
    request_id: str | None = Field(description="finds the request in the server's log")
    errors: list[FieldProblem] | None = None
    field: str | None = None
    store: str | None = None
    error: str | None = Field(None, description="RFC 6749's, from the token endpoint alone")
    error_description: str | None = None


MEANINGS = {
    400: "The body cannot be read.",
    401: "No token, or not a valid one.",
    403: "The caller may not do this.",
    404: "There is no such object, or it is not the caller's.",
    409: "The request contradicts what is stored; `field` names a value that is taken.",
    412: "It has changed since it was read; `ETag` stands for its present state.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    415: "The body is of another type than this route reads; `Accept` says which it reads.",
    422: "The request is not valid; `errors` names its fields.",
    429: "Too many requests; `Retry-After` says how many seconds to wait.",
    431: "The headers are too large.",
    503: "A database is not available at the moment; `Retry-After` says how many seconds to wait.",
}

HEADERS_OF: Mapping[int, str] = {
    401: "WWW-Authenticate",
    412: "ETag",
    415: "Accept",
    429: "Retry-After",
    503: "Retry-After",
}

Responses = dict[int | str, Json]
"""What FastAPI takes as the `responses` of a route."""


def problems(*statuses: int) -> Responses:
    """The `responses` of a route for these statuses, for the API's document."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> Json:
    meaning = MEANINGS.get(status) or f"{HTTPStatus(status).phrase}."
    kind = next((kind_of(error) for error, answer in ANSWERS.items() if answer.status == status), _kind(status))
    example = {"type": f"{TYPES}{kind}", "title": HTTPStatus(status).phrase, "status": status, "detail": meaning}
    example |= {"instance": "/path", "request_id": "0f3c9a"}
    content = {"schema": {"$ref": SCHEMAS.format(model="Problem")}, "example": example}
    told = {"description": meaning, "content": {"application/problem+json": content}}
    return told | (sends(HEADERS_OF[status]) if status in HEADERS_OF else {})


def problem_schemas() -> Json:
    """What the document holds once for all operations."""
    problem = Problem.model_json_schema(ref_template=SCHEMAS)
    return {"Problem": problem, **problem.pop("$defs")}


def kind_of(error: type[TristoreError]) -> str:
    """The last part of its problem's `type`: `not-found` of NotFound."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", error.__name__).lower()


def _kind(status: int) -> str:
    return KINDS.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "-")


def add_error_handlers(app: FastAPI, own: Answers | None = None, token_path: str | None = None) -> None:
    """Answer every error as application/problem+json with the request's id. `own` are the product's errors that need
    another status, fields or headers than their base. `token_path`: the token endpoint of OAuth2, whose errors also
    have the fields of RFC 6749."""
    app.state.token_path = token_path
    answers = {**ANSWERS, **(own or {})}

    async def known(request: Request, error: Any) -> Response:
        if isinstance(error, StoreUnavailable):
            log.warning("store_unavailable", store=error.store, reason=error.reason, cause=error.cause)
        status, fields, headers = next(answers[cls] for cls in type(error).__mro__ if cls in answers)
        detail = f"{error.field} {error}." if isinstance(error, InvalidInput) else str(error)
        return problem(request, status, detail, headers(error), kind=kind_of(type(error)), **fields(error))

    app.add_exception_handler(TristoreError, known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def problem(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    /,
    kind: str | None = None,
    **fields: object,
) -> Response:
    """An answer with this problem. Its `kind` follows from the status, where it has no other. `fields` are the members
    that only some problems have."""
    if _asks_for_token(request):
        fields |= {"error": _oauth_error(status, detail), "error_description": detail}
    body = {
        "type": f"{TYPES}{kind or _kind(status)}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": quote(request.scope.get("raw_path") or b"/", OF_A_PATH),  # decoded it would be no URI reference
        "request_id": request.scope.get("request_id"),
        **fields,
    }
    # ASCII only: a lone surrogate in the path or a field's name must not break the answer that reports it.
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


def _asks_for_token(request: Request) -> bool:
    scope: Scope = request.scope
    path: str = scope["path"]
    return "app" in scope and path.removeprefix(scope.get("root_path", "")) == scope["app"].state.token_path


def _oauth_error(status: int, detail: str) -> str:
    if status == 422 and "grant_type" in detail:
        return "unsupported_grant_type"
    return OAUTH_ERRORS.get(status, "invalid_request")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    errors = [{"field": _field(item), "message": _message(item)} for item in found[:MOST_ERRORS]]
    fields = ", ".join(item["field"] for item in errors)
    more = f", and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    return problem(request, 422, f"Not valid: {fields}{more}.", errors=errors)


def _field(item: Json) -> str:
    part_of_request, *path = map(str, item["loc"])
    if item["type"] == "json_invalid":  # what comes next is no name, but where the parser stood
        return part_of_request
    return ".".join(path)[:MOST_OF_A_NAME] or part_of_request


def _message(item: Json) -> str:
    if item["type"] == "json_invalid":
        return f"is not JSON at character {item['loc'][1]}: {item['ctx']['error']}"
    # pydantic quotes the input in some messages, and an input may be a secret.
    if item["type"].startswith("uuid"):
        return "must be a UUID"
    return str(item["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
        return problem(request, 404, _no_route(request))
    if error.status_code == 405:
        detail = f"This path does not take {request.method}; `Allow` says what it takes."
        return problem(request, 405, detail, {"Allow": ", ".join(_allowed(request, request.scope["path"]))})
    return problem(request, error.status_code, f"{error.detail.removesuffix('.')}.", error.headers)


def _no_route(request: Request) -> str:
    path: str = request.scope["path"]
    other = path.rstrip("/") if path.endswith("/") else f"{path}/"
    # No redirect: it would lead to whatever host the request names.
    hint = f" There is at {other}." if len(path) > 1 and _allowed(request, other) else ""
    return f"There is nothing at this path.{hint}"


def _allowed(request: Request, path: str) -> list[str]:
    # The router names the methods of the first route with this path only.
    scope = {name: request.scope[name] for name in ("type", "root_path")} | {"path": path}
    routes = request.app.routes
    taken = {method for method in METHODS if any(_takes(route, scope | {"method": method}) for route in routes)}
    if "GET" in taken:
        taken.add("HEAD")
    return [method for method in METHODS if method in taken]


def _takes(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is Match.FULL


def internal_error(scope: Scope) -> Response:
    """The answer to what nobody expected."""
    return problem(Request(scope), 500, "Unexpected; the log has the cause under this request_id.")
