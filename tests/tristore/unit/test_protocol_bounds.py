"""What never ends is refused while it comes: heads, trailers, extensions of chunks, empty lines, silence."""

import asyncio
import json
import math
import resource
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tristore.http import protocol, unread
from tristore.http.descriptors import most_connections
from tristore.http.middleware import LINE_BYTES, MAX_HEADER_BYTES
from tristore.testing.endless import CHUNKED, ENDLESS
from tristore.testing.raw_http import (
    LARGE,
    Seen,
    app_for,
    connection,
    exchange,
    only_connection,
    serving,
    statuses,
    until,
)

PIECE = 16_384


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    seen = Seen()
    async with serving(app_for(seen), seen):
        yield seen


@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_never_ends_is_refused_after_a_few_pieces(seen: Seen, kind: str) -> None:
    begin, repeated, status = ENDLESS[kind]
    piece = repeated * (PIECE // len(repeated))
    async with connection(seen) as (reader, writer):
        writer.write(begin)
        server = await only_connection(seen)
        sent = 0
        while not isinstance(server.parser, protocol._Discard):
            assert sent < 40 * PIECE
            with suppress(ConnectionError):
                writer.write(piece)
                await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0.005)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    assert statuses(head) == [status]
    assert json.loads(body)["status"] == status
    assert seen.requests == []


async def test_of_a_head_in_one_piece_little_more_is_kept_than_it_may_have(seen: Seen) -> None:
    """What is kept shows that it is too large."""
    async with connection(seen):
        (await only_connection(seen)).data_received(b"GET /a HTTP/1.1\r\n" + b"a:b\r\n" * 38_000 + b"\r\n")
        await until(lambda: bool(seen.scopes))
    [scope] = seen.scopes
    kept = sum(len(name) + len(value) + LINE_BYTES for name, value in scope["headers"])
    assert MAX_HEADER_BYTES < kept <= MAX_HEADER_BYTES + LINE_BYTES + 2


async def test_little_is_read_of_a_connection_at_once(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    feed = protocol.HttpProtocol.data_received

    def weigh(server: protocol.HttpProtocol, data: bytes) -> None:
        sizes.append(len(data))
        feed(server, data)

    monkeypatch.setattr(protocol.HttpProtocol, "data_received", weigh)
    assert statuses(await exchange(seen, long(500_000), b"x" * 500_000)) == [200]
    assert max(sizes) <= protocol.READ_AT_ONCE


async def test_a_large_head_that_offers_an_upgrade_is_refused_before_the_offer_is_taken_out(seen: Seen) -> None:
    head = b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" + b"a:b\r\n" * 8190
    assert statuses(await exchange(seen, head + b"\r\n")) == [431]
    assert seen.scopes == []


async def test_a_body_in_the_smallest_chunks_is_read(seen: Seen) -> None:
    async with connection(seen) as (reader, writer):
        writer.write(CHUNKED)
        for _ in range(40):
            writer.write(b"1\r\nx\r\n" * 5000)
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\nGET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert statuses(await asyncio.wait_for(reader.read(), 30)) == [200, 200]
    assert seen.requests[0] == ("POST /a", b"x" * 200_000)


async def test_a_thousand_small_requests_on_one_connection_are_no_large_one(seen: Seen) -> None:
    request = b"GET /a HTTP/1.1\r\nHost: t\r\nX: %b\r\n\r\n" % (b"x" * 100)
    async with connection(seen) as (reader, writer):
        for _ in range(1000):
            writer.write(request[:50])
            await asyncio.sleep(0)
            writer.write(request[50:])
        writer.write(b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert statuses(await asyncio.wait_for(reader.read(), 30)) == [200] * 1001


@pytest.mark.parametrize(("request_", "served"), [(b"", protocol.MOST_WAITING + 1), (b"X: %b\r\n" % (b"x" * 6000), 4)])
async def test_only_so_many_requests_wait_for_their_turn(seen: Seen, request_: bytes, served: int) -> None:
    """One is served meanwhile. The last one that waits is told to be the last."""
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        server.data_received(b"GET /a HTTP/1.1\r\nHost: t\r\n%b\r\n" % request_ * 1000)
        assert len(server.pipeline) == served - 1
        writer.write(b"x" * 500_000)  # what nobody reads must not take the answers away
        answers = await asyncio.wait_for(reader.read(), 10)
    assert statuses(answers) == [200] * served
    assert answers.count(b"connection: close") == 1


async def ask_for_much(seen: Seen, writer: asyncio.StreamWriter) -> protocol.HttpProtocol:
    server = await only_connection(seen)
    writer.write(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n")
    await until(lambda: server.unread.size > 0)
    return server


async def test_an_answer_that_nobody_takes_ends_with_its_connection(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_sweep", lambda *_: None)
    async with connection(seen) as (reader, writer):
        server = await ask_for_much(seen, writer)
        now, size = server.loop.time(), server.unread.size
        server.end_if_late(now)
        await reader.readexactly(len(LARGE) // 2)
        await until(lambda: server.unread.size < size)
        server.end_if_late(now + unread.UNREAD_SECONDS - 1)
        server.end_if_late(now + unread.UNREAD_SECONDS + 1)
        assert server.unread.size > 0
        server.end_if_late(now + 2 * unread.UNREAD_SECONDS + 1)
        await until(lambda: not seen.state.connections)


async def test_who_takes_as_much_as_comes_is_not_stuck(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits stays the same then, as it does where nobody takes anything."""
    monkeypatch.setattr(protocol, "_sweep", lambda *_: None)
    async with connection(seen) as (_, writer):
        waiting = (await ask_for_much(seen, writer)).unread
        seconds = unread.UNREAD_SECONDS
        assert not waiting.is_stuck(0, grows=False)
        assert not waiting.is_stuck(2 * seconds, grows=True)
        assert not waiting.is_stuck(3 * seconds, grows=False)
        assert waiting.is_stuck(3 * seconds + 1, grows=False)


async def test_what_waits_for_its_clients_has_a_sum(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest is given up, when the sum is too large and not only at the next look."""
    monkeypatch.setattr(unread, "MOST_UNREAD", len(LARGE))
    monkeypatch.setattr(protocol, "_sweep", lambda *_: None)
    async with connection(seen) as (_, writer):
        await ask_for_much(seen, writer)
        async with connection(seen) as (_, other):
            await until(lambda: len(seen.state.connections) == 2)
            other.write(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n")
            await until(lambda: len(seen.state.connections) == 1)
            [left] = protocol._servers[seen.state].unread
            assert 0 < left.size <= len(LARGE)
    await until(lambda: not protocol._servers[seen.state].unread)


async def test_the_sweep_sums_up_too(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small ones, of which none is late."""
    async with connection(seen) as (_, writer):
        await ask_for_much(seen, writer)
        monkeypatch.setattr(unread, "MOST_UNREAD", 2**20)
        await until(lambda: not seen.state.connections)


async def test_a_head_that_takes_too_long_is_refused(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0)
    async with connection(seen) as (reader, writer):
        for before in (b"", b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n"):
            writer.write(before)
        writer.write(b"GET /a HTTP/1.1\r\n")
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200, 408]
    await until(lambda: not seen.state.connections)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n"])
async def test_a_silent_connection_is_closed(seen: Seen, sent: bytes) -> None:
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        server.timeout_keep_alive = 1
        writer.write(sent)
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200] * bool(sent.strip())


async def test_an_empty_line_after_a_request_does_not_keep_its_connection_for_ever(seen: Seen) -> None:
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        server.timeout_keep_alive = 1
        writer.write(b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n0"), 10)
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_who_waits_for_an_answer_is_not_silent(seen: Seen) -> None:
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        server.timeout_keep_alive = 0
        writer.write(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"begun"), 10)
        writer.write(b"\r\n")
        await until(lambda: server._waits_since < math.inf)
        server.end_if_late(server.loop.time() + 100)
        assert not server.transport.is_closing()


def long(length: int, path: bytes = b"/a") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (path, length)


@pytest.mark.parametrize("path", [b"/a", b"/stream"])
async def test_a_body_that_comes_too_slowly_is_refused(seen: Seen, path: bytes) -> None:
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        writer.write(long(50_000, path) + b"x" * 20_000)
        await until(lambda: server.cycle is not None and server._held == 20_000)
        server.end_if_late(server.loop.time() + protocol.BODY_SECONDS - 1)
        assert not isinstance(server.parser, protocol._Discard)
        server.end_if_late(server.loop.time() + protocol.BODY_SECONDS + 1)  # what came before saves up no more
        with suppress(ConnectionError):  # none is told in the middle of another answer
            assert (await asyncio.wait_for(reader.read(), 10)).count(b" 408 ") == (path == b"/a")
    await until(lambda: not seen.state.connections)


async def test_a_body_may_take_its_time_as_long_as_it_comes(seen: Seen) -> None:
    async with connection(seen) as (reader, writer):
        server = await only_connection(seen)
        writer.write(long(3000) + b"x" * 1000)
        await until(lambda: server._held == 1000)
        first = server._body_until
        await asyncio.sleep(0.1)
        writer.write(b"x" * 1000)
        await until(lambda: server._held == 2000)
        server.end_if_late(first + 0.05)  # too late for the first piece alone
        writer.write(b"x" * 1000)
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200]


async def test_bodies_are_held_up_to_a_sum_over_all_connections(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_HELD", 100_000)
    whole, part = long(60_000), b"x" * 55_000
    async with connection(seen) as (first, to_first), connection(seen) as (second, to_second):
        to_first.write(whole + part)
        await until(lambda: protocol._servers[seen.state].held == 55_000)
        to_second.write(whole + part)
        refused = await asyncio.wait_for(second.read(), 10)
        assert statuses(refused) == [503]
        assert b"\r\nretry-after: 1\r\n" in refused
        to_first.write(b"x" * 5000)
        assert statuses(await asyncio.wait_for(first.read(), 10)) == [200]
    assert protocol._servers[seen.state].held == 0


async def test_a_body_in_the_pipeline_is_held_too(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_HELD", 10_000)  # less than is read at once
    async with connection(seen) as (_, writer):
        writer.write(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n" + long(150_000) + b"x" * 150_000)
        server = await only_connection(seen)
        await until(lambda: isinstance(server.parser, protocol._Discard))
        assert [cycle.body for cycle, _ in server.pipeline] == [b""]
    await until(lambda: not seen.state.connections)
    assert protocol._servers[seen.state].held == 0


async def test_a_body_whose_connection_is_lost_is_held_no_more(seen: Seen) -> None:
    async with connection(seen) as (_, writer):
        writer.write(long(60_000) + b"x" * 50_000)
        await until(lambda: protocol._servers[seen.state].held == 50_000)
    await until(lambda: protocol._servers[seen.state].held == 0)


async def test_who_comes_when_there_is_no_room_is_told_so(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda backlog: 2)
    monkeypatch.setattr(protocol, "MOST_REFUSED", 1)
    request = b"GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    async with connection(seen) as (reader, writer), connection(seen):
        async with connection(seen) as (refused, _), connection(seen) as (closed, _):
            got = await asyncio.wait_for(refused.read(), 10)
            assert statuses(got) == [503]
            assert b"\r\nretry-after: 1\r\n" in got
            assert b"/problems/overloaded" in got
            with suppress(ConnectionError):
                assert await asyncio.wait_for(closed.read(), 10) == b""
        writer.write(request)
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200]
    await until(lambda: len(seen.state.connections) <= 1)
    async with connection(seen) as (reader, writer):
        writer.write(request)
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200]


def test_descriptors_are_left_for_ourselves_and_for_what_is_accepted_at_once() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 0 < most_connections(2048) <= max(soft // 2, soft - 2048)
