"""What the middleware does between requests that come together."""

import asyncio
import itertools
from contextlib import suppress

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tristore.http.middleware import OneBodyATurn, SizeBounds


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


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        *(
            ("1.1", [host], 204)
            for host in (b"a", b"a.example:8000", b"127.0.0.1", b"[::1]:80", b"a_b-c.example:", b"")
        ),
        *(
            ("1.1", [host], 400)
            for host in (b"a b", b"a/b", b"a?b", b"a#b", b"u@a", b"[", b"a:b", b"\xfc", b"http://a")
        ),
        ("1.1", [], 400),
        ("1.1", [b"a", b"a"], 400),
        ("1.0", [], 204),
        ("1.0", [b"a"], 204),
        ("1.0", [b"a", b"b"], 400),
    ],
)
async def test_a_request_has_one_host(version: str, hosts: list[bytes], status: int) -> None:
    assert await answered(version, *((b"host", host) for host in hosts)) == status


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        (b"chunked", 204),
        (b"Chunked", 204),
        (b"gzip, chunked", 400),
        (b"identity", 400),
        (b"chunked, chunked", 400),
        (b"", 400),
    ],
)
async def test_a_coding_that_nobody_decodes_is_refused(coding: bytes, status: int) -> None:
    assert await answered("1.1", (b"host", b"a"), (b"transfer-encoding", coding)) == status


async def answered(version: str, *headers: tuple[bytes, bytes]) -> int:
    """The status of the answer to a request with these headers. Where it is refused, the connection ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=204)(scope, receive, send)

    async def nothing() -> Message:
        return {"type": "http.request"}

    async def note(message: Message) -> None:
        sent.append(message)

    sent: list[Message] = []
    scope = {
        "type": "http",
        "http_version": version,
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
    }
    await SizeBounds(app, max_body_bytes=0)(scope | {"headers": headers}, nothing, note)
    status: int = sent[0]["status"]
    assert ((b"connection", b"close") in sent[0]["headers"]) == (status >= 400)
    return status
