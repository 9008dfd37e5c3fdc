"""A service without stores, for tests of what starts it: `python -m tests.tristore.small_service`.

BROKEN=import or lifespan: it cannot start. SLOW_START: so many seconds pass before a worker's first instruction.
HANGS: from its start on, one of its threads waits for so many seconds. TALKS: it does what Python itself tells of."""

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

from tristore.ops.service import Service, Services
from tristore.settings import TristoreSettings

Message = MutableMapping[str, Any]
BROKEN = os.environ.get("BROKEN")

if __name__ == "__mp_main__":
    time.sleep(float(os.environ.get("SLOW_START", "0")))
elif __name__ != "__main__" and BROKEN == "import":
    raise ZeroDivisionError("broken while it is imported")


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _live(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    await receive()
    if BROKEN == "lifespan":
        raise ZeroDivisionError("broken while it starts")
    if os.environ.get("TALKS"):
        warnings.warn("a warning of Python", RuntimeWarning, stacklevel=1)
        threading.Thread(target=_break).start()
    waits = asyncio.to_thread(time.sleep, float(os.environ.get("HANGS", "0")))
    waiting = asyncio.create_task(waits)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    waiting.cancel()
    await send({"type": "lifespan.shutdown.complete"})


def _break() -> None:
    raise ZeroDivisionError("broken in a thread")


def _none(*args: object) -> NoReturn:
    raise NotImplementedError("it has no stores")


def _open_services(settings: TristoreSettings) -> AbstractAsyncContextManager[Services]:
    _none(settings)


if __name__ == "__main__":
    from tristore.ops.run import run

    run(Service("small", TristoreSettings, _open_services, _none, module="tests.tristore.small_service"))
