"""What surrounds each request: its id, its budget of waiting for PostgreSQL, its place in log and metrics, the headers
of every answer, the largest size of a request, and the turns in which bodies are parsed."""

import asyncio
import random
import re
import time
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tristore.http import security_log
from tristore.http.compression import Compression
from tristore.http.head import HeadAsGet
from tristore.http.headers import HEADERS as TOLD
from tristore.http.problems import internal_error, problem
from tristore.settings import TristoreSettings
from tristore.stores.postgres import start_budget
from tristore.stores.replica import NOBODY, caller

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?")
MAX_TARGET_BYTES, MAX_HEADER_BYTES, LINE_BYTES = 4096, 16_384, 32
"""The last is what each header counts besides its name and value, as in HTTP/2 (RFC 9113, 6.5.2): the shortest one
takes 180 bytes of memory, and each is looked at several times."""
HEADERS_TOO_LARGE = (
    f"Headers together may have {MAX_HEADER_BYTES} bytes, and each counts {LINE_BYTES} more than it has."
)
PREFLIGHT_SECONDS = 7200  # the longest that Chromium keeps one
FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip", b"forwarded"}
WITH_BODY = {"POST", "PUT", "PATCH"}
# OWASP REST Security Cheat Sheet; browsers heed the last over HTTPS only. A route may send its own instead of one.
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000"),
)

log = structlog.get_logger("access")


def add_middleware(app: FastAPI, settings: TristoreSettings) -> None:
    """The last one added is the outermost."""
    app.add_middleware(Compression)
    app.add_middleware(HeadAsGet)
    app.add_middleware(OneBodyATurn)
    app.add_middleware(SizeBounds, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(
        RequestContext, postgres_deadline=settings.postgres_request_deadline, access_log=settings.access_log
    )
    app.add_middleware(ProxyHeaders, trusted_hosts=settings.trusted_proxies)
    if settings.cors_origins:
        app.add_middleware(
            Origins,
            allow_origins=settings.cors_origins,
            allow_credentials=settings.cors_allow_credentials,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=list(TOLD),  # a browser hides the others from a page of another origin
            max_age=PREFLIGHT_SECONDS,
        )


class Origins(CORSMiddleware):
    """Starlette answers a preflight that it refuses as plain text, without a request id, and unlogged. Here the
    application answers it as any other OPTIONS, without the header that would allow it."""

    def preflight_response(self, request_headers: Headers) -> Any:
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code < 400 else partial(self.simple_response, request_headers=request_headers)


class ProxyHeaders(ProxyHeadersMiddleware):
    """Believes what a trusted proxy says of the client. Of the first other peer that says such a thing it warns: most
    often that is a proxy that nobody has named, so that all clients are counted as one address."""

    _may_warn = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._may_warn and scope["type"] == "http" and any(name in FORWARDED for name, _ in scope["headers"]):
            self._warn_unless_trusted(scope["client"])
        await super().__call__(scope, receive, send)

    def _warn_unless_trusted(self, client: tuple[str, int] | None) -> None:
        if client and client[0] not in self.trusted_hosts:
            self._may_warn = False
            cure = "If it is a proxy of yours, name its address or network in TRUSTED_PROXIES."
            log.warning("forwarded_headers_not_believed", peer=client[0], cure=cure)


class RequestContext:
    """Plain ASGI: Starlette's BaseHTTPMiddleware would cost a task and two queues a request."""

    def __init__(self, app: ASGIApp, *, postgres_deadline: float, access_log: bool) -> None:
        self._app = app
        self._postgres_deadline = postgres_deadline
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        start_budget(self._postgres_deadline)
        if not any(name == b"authorization" for name, _ in scope["headers"]):
            caller.set(NOBODY)
        started = time.monotonic()
        status = 500
        started_response = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started_response
            if message["type"] == "http.response.start":
                status, started_response = message["status"], True
                message["headers"] = with_ours(message["headers"], request_id)
                if "replayed" in scope:
                    message["headers"].append((b"idempotency-replayed", b"true"))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request_failed")
            if started_response:
                raise
            await internal_error(scope)(scope, receive, send_with_id)
        finally:
            # The route's template, not the path: ids and whatever else clients put into a URL stay out of the log.
            method, route = scope["method"], getattr(scope.get("route"), "path", None)
            seconds = time.monotonic() - started
            scope["app"].state.metrics.observe_request(method, route, status, seconds)
            if self._access_log:
                log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))
            security_log.note(scope, route, status)
            structlog.contextvars.clear_contextvars()  # whatever else was bound on the way


def with_ours(given: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in given}
    ours = (*HEADERS, (b"x-request-id", request_id.encode()))
    return [*(header for header in ours if header[0] not in names), *given]


def _request_id(scope: Scope) -> str:
    # A client's id is kept, so that a trace goes on, unless it could forge lines of the log.
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return f"{random.getrandbits(128):032x}"


class OneBodyATurn:
    """Lets one request that may have a body through in each turn of the event loop. Forty that come together would keep
    everybody else waiting for 30 ms, while they are parsed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in WITH_BODY:
            async with self._turn:
                await asyncio.sleep(0)
        await self._app(scope, receive, send)


class SizeBounds:
    """Refuses a request that is too large before it is parsed, and one of HTTP/1.1 without a `Host`, or with one that
    proxies could read in another way (RFC 9112, section 3.2)."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            # The rest of the body is not worth reading, so the connection cannot be used again.
            answer = problem(Request(scope), *refusal, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise HTTPException(413, f"The body is larger than {self._max_body_bytes} bytes.")
            return message

        await self._app(scope, receive_bounded, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
            return 414, f"Path and query together may have {MAX_TARGET_BYTES} bytes."
        header_bytes, length, hosts = 0, b"0", []
        for name, value in scope["headers"]:
            header_bytes += len(name) + len(value) + LINE_BYTES
            if name == b"content-length":
                length = value
            elif name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return 400, "The one transfer coding that this server decodes is chunked."
        if header_bytes > MAX_HEADER_BYTES:
            return 431, HEADERS_TOO_LARGE
        if not length.isdigit() or int(length) > self._max_body_bytes:
            return 413, f"The body may have {self._max_body_bytes} bytes."
        if not (HOST.fullmatch(hosts[0]) if len(hosts) == 1 else scope["http_version"] == "1.0" and not hosts):
            return 400, "A request has one header `Host`, which names a host."
        return None
