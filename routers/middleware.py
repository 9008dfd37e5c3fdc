"""What surrounds each request: its id, its budget of waiting for PostgreSQL, its line in the log."""

import re
import time
import uuid
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from database.postgres import start_budget
from routers.problems import internal_error

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")

log = structlog.get_logger("access")


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
        started = time.monotonic()
        status = 500
        started_response = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started_response
            if message["type"] == "http.response.start":
                status, started_response = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request_failed")
            if started_response:
                raise
            await internal_error(scope)(scope, receive, send_with_id)
        finally:
            if self._access_log:
                log.info("request", **_facts(scope), status=status, ms=round((time.monotonic() - started) * 1000, 1))
            structlog.contextvars.clear_contextvars()


def _request_id(scope: Scope) -> str:
    # A client's id is kept, so that a trace goes on, unless it could forge lines of the log.
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _facts(scope: Scope) -> dict[str, Any]:
    route = scope.get("route")
    # The route's template, not the path: ids and whatever else clients put into a URL stay out of the log.
    return {"method": scope["method"], "route": getattr(route, "path", None)}
