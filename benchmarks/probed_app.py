"""The app with a probe of its event loop. `GET /probe` answers what the probe saw since it was asked last;
`GET /probe?threads=40` also sets how many threads may hash. Run as `python -m benchmarks.probed_app PORT`.

The benchmark's own entry point: nothing of it is in the shipped code.
"""

import asyncio
import gc
import sys
import time
from typing import Any, NoReturn

import uvicorn
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from config import get_settings
from main import create_app
from tristore.http.protocol import HttpProtocol

TICK = 0.001


class Probe:
    """Notes in milliseconds how late the loop wakes it up each time, how long the loop's thread computed meanwhile, and
    how long garbage collections took."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, float]] = []
        self._collections: list[float] = []
        gc.callbacks.append(self._note_collection)

    async def run(self) -> NoReturn:
        while True:
            started, computed = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK)
            late = time.monotonic() - started - TICK
            self._ticks.append((late * 1000, (time.thread_time() - computed) * 1000))

    def report(self) -> dict[str, Any]:
        """What was seen since the last report."""
        seen = {"ticks": self._ticks, "collections": self._collections}
        self._ticks, self._collections = [], []
        return seen

    def _note_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        else:
            self._collections.append((time.monotonic() - self._collecting_since) * 1000)


class ProbeRoute:
    def __init__(self, app: ASGIApp, probe: Probe, state: Any) -> None:
        self._app, self._probe, self._state = app, probe, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/probe":
            await self._app(scope, receive, send)
            return
        limiter = self._state.services.auth._hasher._limiter
        if threads := QueryParams(scope["query_string"]).get("threads"):
            limiter.total_tokens = int(threads)
        await JSONResponse({"threads": limiter.total_tokens, **self._probe.report()})(scope, receive, send)


async def main(port: int) -> None:
    probe = Probe()
    app = create_app(get_settings())
    app.add_middleware(ProbeRoute, probe=probe, state=app.state)
    ticking = asyncio.create_task(probe.run())
    config = uvicorn.Config(app, port=port, http=HttpProtocol, log_level="warning", timeout_keep_alive=75)
    await uvicorn.Server(config).serve()
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
