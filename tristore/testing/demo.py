"""The page of `make demo`: a person stops and starts stores there, and watches what becomes of the service's work.

It is for this machine alone. It answers to its own address only, and changes something only for its own page. So no
other page that is open in the browser can stop a database."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import httpx
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tristore.errors import StoreName

PAGE = Path(__file__).with_name("demo.html")
OWN_HEADER = "X-Demo"
"""A page of another origin cannot send it unasked."""
SHOWN = 12
Act = Callable[[], AsyncIterator[str]]
"""Lets the service do something, and tells how far it is."""
Verb = Literal["stop", "start"]


class Servers(Protocol):
    """Those of `tristore.embedded.servers`."""

    def start(self, store: StoreName) -> object: ...
    def stop(self, store: StoreName) -> object: ...
    def status(self, store: StoreName) -> object | None: ...


@dataclass
class Deed:
    """An act that was begun."""

    what: str
    states: list[tuple[float, str]] = field(default_factory=list)
    """After how many seconds, and what."""
    is_over: bool = False


class Stage:
    def __init__(self, *, embedded: Servers, api: httpx.AsyncClient, acts: Mapping[str, Act]) -> None:
        """`api` leads to the service. `acts` by the names that their buttons have."""
        self._embedded = embedded
        self._api = api
        self.acts = acts
        self._deeds: list[Deed] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    def begin(self, what: str) -> None:
        deed = Deed(what)
        self._deeds = [deed, *self._deeds][:SHOWN]
        task = asyncio.create_task(self._play(deed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, deed: Deed) -> None:
        began = time.monotonic()
        try:
            async for state in self.acts[deed.what]():
                if not deed.states or deed.states[-1][1] != state:
                    deed.states.append((round(time.monotonic() - began, 1), state))
        except httpx.HTTPError as error:
            deed.states.append((round(time.monotonic() - began, 1), f"no answer: {type(error).__name__}"))
        deed.is_over = True

    async def change(self, store: StoreName, verb: Verb) -> None:
        async with self._changing:
            await to_thread.run_sync(getattr(self._embedded, verb), store)

    async def shown(self) -> dict[str, object]:
        try:
            health = (await self._api.get("/health")).json()
        except httpx.HTTPError:
            health = None
        running = {store: self._embedded.status(store) is not None for store in get_args(StoreName)}
        deeds = [asdict(deed) for deed in self._deeds]
        return {"health": health, "running": running, "acts": list(self.acts), "deeds": deeds}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def demo_app(stage: Stage, host: str) -> Starlette:
    """`host`: the page's own host and port, and the only ones that it answers to."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(), headers={"X-Frame-Options": "DENY", "Cache-Control": "no-store"})

    async def state(request: Request) -> Response:
        return JSONResponse(await stage.shown())

    async def change(request: Request) -> Response:
        store, verb = request.path_params["store"], request.path_params["verb"]
        if store not in get_args(StoreName) or verb not in get_args(Verb):
            return Response(status_code=404)
        await stage.change(store, verb)
        return Response(status_code=204)

    async def act(request: Request) -> Response:
        what = request.query_params.get("what", "")
        if what not in stage.acts:
            return Response(status_code=404)
        stage.begin(what)
        return Response(status_code=204)

    def own(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if request.headers.get("Host") != host:  # a name that a stranger has pointed to this machine
                return PlainTextResponse("Open it by its own address.\n", status_code=421)
            if request.method == "POST" and OWN_HEADER not in request.headers:
                return PlainTextResponse("Only its own page may do that.\n", status_code=403)
            return await answer(request)

        return guarded

    return Starlette(
        routes=[
            Route("/", own(page)),
            Route("/state", own(state)),
            Route("/stores/{store}/{verb}", own(change), methods=["POST"]),
            Route("/acts", own(act), methods=["POST"]),
        ]
    )
