"""The lab's own entry point: the app that kills itself when told (tristore/testing/doomed.py), that hashes passwords
cheaply, tells what it holds, and is broken where the lab checks itself.

Run as `python -m tests.chaos.app PORT FILE`; the file gets the calls at which it killed itself.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvicorn
from pymongo import monitoring
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from config import get_settings
from main import create_app
from tests.chaos.broken import break_app, break_stores, break_wiring
from tests.chaos.broken_releases import RELEASES
from tests.under_test import QUICK_HASH
from tristore.http.protocol import HttpProtocol
from tristore.ops.process import configure_logging
from tristore.passwords import CONTEXT
from tristore.stores import mongodb, postgres, redis
from tristore.stores.stores import Stores, open_stores
from tristore.testing.doomed import Arm, Doom, MongoCalls, watch


class ToldDoom(Doom):
    """Says at which call the end came."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def end(self, name: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{name}\n")
        super().end(name)


class Tell:
    """GET /lab: how many tasks there are, and how many connections are in use."""

    def __init__(self, app: ASGIApp, stores: Stores) -> None:
        self._app, self._stores = app, stores

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/lab":
            await self._app(scope, receive, send)
            return
        in_use = {
            "postgresql": postgres.pool_use(self._stores.postgres)[0],
            "redis": redis.pool_use(self._stores.redis)[0],
            "mongodb": mongodb.pool_use(self._stores.mongodb)[0],
        }
        tasks = sorted(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]  # all have one
        await JSONResponse({"tasks": tasks, "in_use": in_use})(scope, receive, send)


async def main(port: int, kills: Path) -> None:
    CONTEXT.update(**QUICK_HASH)
    variant = os.environ.get("BREAK", "")
    break_wiring(variant)
    if variant in RELEASES:
        RELEASES[variant]()
    doom = ToldDoom(kills)
    monitoring.register(MongoCalls(doom))
    settings = get_settings()
    configure_logging(settings)
    async with open_stores(settings) as stores:
        watch(stores, doom)
        break_stores(variant, stores)
        app = create_app(settings, stores)
        break_app(variant, app)
        app.add_middleware(Arm, doom=doom)
        app.add_middleware(Tell, stores=stores)
        config = uvicorn.Config(app, port=port, http=HttpProtocol, log_level="warning", timeout_keep_alive=75)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
