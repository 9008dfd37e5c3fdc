"""What the server itself refuses, before there is a request that the application could answer."""

import random

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tristore.http.middleware import with_ours
from tristore.http.problems import RETRY_AFTER, problem


class Refused(Exception):
    """Status, and why."""


class Refusal:
    """An application with one answer."""

    def __init__(self, status: int, detail: str) -> None:
        self.request_id = f"{random.getrandbits(128):032x}"
        self._status, self._detail = status, detail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(Request(scope), self._status, self._detail, RETRY_AFTER if self._status == 503 else None)
        answer.raw_headers = with_ours(answer.raw_headers, self.request_id)
        await answer(scope, receive, send)
