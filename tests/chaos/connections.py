"""A client's connections to the apps: cheap, kept alive, and given up for good when an answer does not come."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.chaos.arena import AppProcess
from tristore.testing.lab import RawConnection

PATIENCE = 2.5
"""Seconds until an app counts as hung; it answers within about one, whatever its stores do."""


class Answer(NamedTuple):
    status: int
    """0: there was none."""
    body: Any = None
    process: int = 0
    """Whose it is: it stands for all that the process has seen, and ends with it."""
    seconds: float = 0
    """That it took."""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_open(self) -> bool:
        """Whether it may or may not have been done: ask again."""
        in_progress = self.status == 409 and "in progress" in self.body["detail"]
        return self.status in {0, 503} or in_progress


class Connections:
    def __init__(self, apps: Sequence[AppProcess]) -> None:
        self._apps = apps
        self._open: dict[int, RawConnection] = {}

    async def ask(
        self, app: int, method: str, path: str, token: str | None = None, body: Any = None, *, form: bool = False,
        key: str | None = None, patience: float = PATIENCE,
    ) -> Answer:  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded" if form else "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if key:
            headers["Idempotency-Key"] = key
        content = b"" if body is None else (urlencode(body) if form else json.dumps(body)).encode()
        connection, process, began = self._open.pop(app, None), self._apps[app].pid, time.monotonic()
        try:
            async with asyncio.timeout(patience):
                connection = connection or await self._connect(app)
                told = await connection.request(method, path, headers, content)
                answer = Answer(*told, process, time.monotonic() - began)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if connection:
                connection.abort()
            return Answer(0)
        except ValueError as error:  # what no handler of ours has written
            return Answer(500, {"detail": f"no JSON: {error}"})
        self._keep(app, connection)
        return answer

    async def _connect(self, app: int) -> RawConnection:
        return RawConnection(*await asyncio.open_connection("127.0.0.1", self._apps[app].port))

    def _keep(self, app: int, connection: RawConnection) -> None:
        if app in self._open:  # another request has brought back its own
            connection.abort()
        else:
            self._open[app] = connection

    def close(self) -> None:
        for connection in self._open.values():
            connection.abort()
        self._open.clear()
