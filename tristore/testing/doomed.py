"""Makes an app kill itself (SIGKILL): at its n-th call to a store after a request with `X-Kill-At: n`, or, after one
with `X-Kill-After-Insert: COLLECTION`, once that collection has taken an insert and before anybody is told.

It wraps the stores that the app is given, so nothing of this is in the shipped code.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from pymongo import monitoring
from sqlalchemy import event
from starlette.types import ASGIApp, Receive, Scope, Send

from tristore.stores.stores import Stores

COUNTED_COMMANDS = {"insert", "update", "delete", "find", "findAndModify", "aggregate"}


class Doom:
    """Counts calls to stores once armed, and ends the process at the n-th."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.collection: str | None = None

    def inserted_into(self, collection: str) -> None:
        if collection == self.collection:
            os.kill(os.getpid(), signal.SIGKILL)

    def call(self, name: str) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.end(name)

    def end(self, name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class MongoCalls(monitoring.CommandListener):
    """Counts each command when it is sent, and again when it was answered."""

    def __init__(self, doom: Doom) -> None:
        self._doom = doom
        self._inserts: dict[int, str] = {}

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name == "insert":
            self._inserts[event.request_id] = event.command["insert"]
        self._count(event.command_name, "sent")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._doom.inserted_into(self._inserts.pop(event.request_id, ""))
        self._count(event.command_name, "answered")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._count(event.command_name, "failed")

    def _count(self, name: str, state: str) -> None:
        if name in COUNTED_COMMANDS:
            self._doom.call(f"mongodb {name} {state}")


def watch(stores: Stores, doom: Doom) -> None:
    for engine in (stores.postgres.engine, stores.postgres.background):
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine.sync_engine, name, _calling(doom, f"postgresql {name}"))
    client: Any = stores.redis.client
    execute = client.execute_command

    async def counted(*args: object, **options: object) -> object:
        doom.call(f"redis {args[0]} sent")
        answer = await execute(*args, **options)
        doom.call(f"redis {args[0]} answered")
        return answer

    client.execute_command = counted


def _calling(doom: Doom, name: str) -> Callable[..., None]:
    return lambda *_, **__: doom.call(name)


class Arm:
    def __init__(self, app: ASGIApp, doom: Doom) -> None:
        self._app, self._doom = app, doom

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope.get("headers", ()):
            if name == b"x-kill-at":
                self._doom.left = int(value)
            elif name == b"x-kill-after-insert":
                self._doom.collection = value.decode()
        await self._app(scope, receive, send)
