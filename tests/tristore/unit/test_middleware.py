"""What the middleware does between requests that come together."""

import asyncio
import itertools
from contextlib import suppress

import pytest
from starlette.types import Message, Receive, Scope, Send

from tristore.http.middleware import OneBodyATurn


@pytest.mark.parametrize(("method", "turns"), [("POST", 40), ("GET", 1)])
async def test_of_forty_requests_with_bodies_one_goes_on_in_each_turn_of_the_loop(method: str, turns: int) -> None:
    turn, went_on = 0, []

    async def count_turns() -> None:
        nonlocal turn
        for turn in itertools.count():  # noqa: B007 - the other function reads it
            await asyncio.sleep(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        went_on.append(turn)

    async def nothing() -> Message:
        return {"type": "http.request"}

    async def nowhere(message: Message) -> None: ...

    scope = {"type": "http", "method": method, "raw_path": b"/auth/token", "query_string": b"", "headers": []}
    bodies = OneBodyATurn(app)
    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(bodies(dict(scope), nothing, nowhere) for _ in range(40)))
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    assert len(went_on) == 40
    assert len(set(went_on)) == turns
