"""Attacks before there is a request: bytes without an end, or none."""

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial

from tests.attack.target import DESCRIPTORS, Row, Target, told
from tristore.http.protocol import BODY_SECONDS, HEAD_SECONDS, MOST_WAITING, READ_AT_ONCE
from tristore.testing.endless import CHUNKED, ENDLESS

PIECE = 16_384
SIGN_IN = b"POST /auth/token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded"
"""A route that reads a body although nobody has signed in."""
SWEEP = 3
"""Seconds: the protocol looks once in each, and a busy machine is late."""


async def endless(target: Target) -> list[Row]:
    rows = []
    for kind, (begin, repeated, status) in ENDLESS.items():
        begin, piece = begin.replace(b"POST /a HTTP/1.1", SIGN_IN), repeated * (PIECE // len(repeated))
        answers = await target.by_all(partial(target.send, begin, piece, 0.01))
        held = {*answers} == {str(status)}
        rows.append(Row(f"{kind} without end", target.attackers, f"all {status}", told(answers), held))
    return rows


async def slow(target: Target) -> list[Row]:
    """A byte at a time."""
    rows = []
    for what, begin, most in [
        ("a head, byte by byte", b"GET /health/live HTTP/1.1\r\nHost: t\r\na: ", HEAD_SECONDS),
        ("a body, byte by byte", SIGN_IN + b"\r\nHost: t\r\nContent-Length: 8000\r\n\r\n", BODY_SECONDS),
    ]:
        started = asyncio.get_running_loop().time()
        answers = await target.by_all(partial(_from_elsewhere, target, begin))
        seconds = asyncio.get_running_loop().time() - started
        bound, measured = f"all 408 within {most + SWEEP} s", f"{told(answers)} in {seconds:.1f} s"
        held = {*answers} == {"408"} and seconds < most + SWEEP
        rows.append(Row(what, target.attackers, bound, measured, held, True))
    return rows


async def _from_elsewhere(target: Target, begin: bytes) -> str:
    [(name, address)] = target.elsewhere().items()
    return await target.send(begin.replace(b"Host: t", f"Host: t\r\n{name}: {address}".encode()), b"a", 0.25)


async def unread(target: Target) -> list[Row]:
    """Bodies in chunks for routes that ask for a token first."""
    begin = CHUNKED.replace(b"/a", b"/conversations").replace(b"Host: t", b"Host: t\r\nContent-Type: application/json")
    piece = b"%x\r\n%b\r\n" % (PIECE, b"x" * PIECE)
    answers = await target.by_all(partial(target.send, begin, piece, 0.01))
    held = {*answers} == {"401"}
    return [Row("a body without end and without a token", target.attackers, "all 401", told(answers), held)]


async def pipelines(target: Target) -> list[Row]:
    """Requests one behind the other, without waiting for an answer: more than is read at once."""
    request = b"GET /nowhere HTTP/1.1\r\n\r\n"
    sent = 8 * READ_AT_ONCE // len(request)
    most = 10 * MOST_WAITING  # some are answered while others still come
    answered = []

    async def attack() -> str:
        reader, writer = await asyncio.open_connection(*target.where)
        writer.write(request * sent)
        answers = b""
        with suppress(ConnectionError):
            answers = await reader.read()
        writer.transport.abort()
        answered.append(answers.count(b"HTTP/1.1 "))
        return ""

    await target.by_all(attack)
    what, bound = f"{sent} requests at once", f"at most {most} answered on each"
    return [Row(what, target.attackers, bound, f"at most {max(answered)}", 0 < max(answered) <= most)]


async def crowd(target: Target) -> list[Row]:
    """More connections than the process has descriptors for."""
    attackers = DESCRIPTORS // 2 + 100  # half are for connections, where the backlog is as large
    refused = served = 0
    async with AsyncExitStack() as exits:
        opened = []
        for _ in range(attackers):
            opened.append(await asyncio.open_connection(*target.where))
            exits.callback(opened[-1][1].transport.abort)
        await asyncio.sleep(1)
        for reader, _ in opened:
            with suppress(TimeoutError, ConnectionError):
                answer = await asyncio.wait_for(reader.read(64), 0.001)
                refused += answer.split()[1:2] == [b"503"] or not answer
    async with asyncio.timeout(10):
        while not served:
            with suppress(OSError, AssertionError):
                assert (await target.app.client.get("/health/live")).status_code == 200
                served += 1
    bound = "few refused, later ones served"
    return [Row("silent connections", attackers, bound, f"{refused} refused", 0 < refused < attackers // 10)]
