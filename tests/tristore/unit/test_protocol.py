"""The server's protocol, met with raw bytes."""

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator

import pytest

from tristore.http import protocol
from tristore.testing.raw_http import Seen, app_for, connection, exchange, only_connection, serving, statuses, until

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
OFFERS = {
    "h2c": H2C,
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
    "anything": b"upgrade: TLS/1.0, foo/2\r\nUpgrade: bar\r\nCONNECTION:upgrade\r\n",
}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
BODIES = {
    "none": (b"", b"", b""),
    "by length": (b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, SMUGGLED),
    "chunked": (
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        b"hello" + SMUGGLED,
    ),
}


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    seen = Seen()
    async with serving(app_for(seen), seen):
        yield seen


def request_that(offers: bytes, body: str, line: bytes = b"POST /a HTTP/1.1") -> bytes:
    headers, sent, _ = BODIES[body]
    return line + b"\r\nHost: t\r\n" + offers + headers + b"\r\n" + sent


LAST = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
async def test_a_request_that_offers_an_upgrade_is_answered_once_with_its_whole_body(
    seen: Seen, offer: str, body: str
) -> None:
    sent, expected = request_that(OFFERS[offer], body), BODIES[body][2]
    got = await exchange(seen, sent + LAST)
    assert statuses(got) == [200, 200]
    assert seen.requests == [("POST /a", expected), ("GET /last", b"")]
    assert b"connection" in dict(seen.scopes[0]["headers"])
    assert b"upgrade" not in dict(seen.scopes[0]["headers"])


@pytest.mark.parametrize("body", BODIES)
async def test_wherever_the_segments_are_cut_the_requests_are_the_same(seen: Seen, body: str) -> None:
    sent = request_that(H2C, body)
    expected = [("POST /a", BODIES[body][2]), ("GET /last", b"")]
    for cut in range(1, len(sent) + 1):
        seen.requests.clear()
        assert statuses(await exchange(seen, sent[:cut], sent[cut:] + LAST)) == [200, 200], cut
        assert seen.requests == expected, cut
    seen.requests.clear()
    async with connection(seen):
        server = await only_connection(seen)
        for byte in sent + LAST:  # each byte by itself, without a network that would join them
            server.data_received(bytes([byte]))
        await until(lambda: len(seen.requests) == 2)
    assert seen.requests == expected


async def test_pipelined_requests_are_answered_in_order_whoever_of_them_offers_what(seen: Seen) -> None:
    kinds = list(itertools.product([b"", *OFFERS.values()], BODIES))
    sent = b"".join(
        request_that(offers, body, b"POST /%d HTTP/1.1" % number) for number, (offers, body) in enumerate(kinds)
    )
    assert statuses(await exchange(seen, sent + LAST)) == [200] * (len(kinds) + 1)
    assert seen.requests[:-1] == [(f"POST /{number}", BODIES[body][2]) for number, (_, body) in enumerate(kinds)]


async def test_a_thousand_offers_in_one_segment_are_as_many_requests_as_may_wait(seen: Seen) -> None:
    offer = b"GET /a HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"
    async with connection(seen) as (reader, _):
        (await only_connection(seen)).data_received(offer * 1000)
        assert statuses(await asyncio.wait_for(reader.read(), 10)) == [200] * (protocol.MOST_WAITING + 1)


@pytest.mark.parametrize(
    ("line", "header", "kept"),
    [
        (b"GET /a HTTP/1.1", b"Connection: upgrade\r\n", True),
        (b"GET /a HTTP/1.1", b"Connection: upgrade, close\r\n", False),
        (b"GET /a HTTP/1.0", b"Connection: upgrade\r\n", False),
    ],
)
async def test_the_connection_is_kept_as_if_nothing_had_been_offered(
    seen: Seen, line: bytes, header: bytes, kept: bool
) -> None:
    got = await exchange(seen, line + b"\r\nHost: t\r\nUpgrade: h2c\r\n" + header + b"\r\n" + LAST)
    assert len(statuses(got)) == (2 if kept else 1)


@pytest.mark.parametrize("offer", [b"", H2C])
async def test_white_space_around_a_value_is_no_part_of_it(seen: Seen, offer: bytes) -> None:
    sent = b"GET /a HTTP/1.1\r\nHost: t\r\nA: \t b c \t \r\nB:\r\nC:  \r\n" + offer + b"\r\n"
    assert statuses(await exchange(seen, sent + LAST)) == [200, 200]
    headers = dict(seen.scopes[0]["headers"])
    assert (headers[b"a"], headers[b"b"], headers[b"c"]) == (b"b c", b"", b"")


@pytest.mark.parametrize("split", [[], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]])
async def test_curl_offers_http2_and_is_answered(seen: Seen, split: list[str]) -> None:
    if b"HTTP2" not in await asyncio.to_thread(subprocess.check_output, ["curl", "--version"]):
        pytest.skip("this curl knows no HTTP/2")
    url = f"http://127.0.0.1:{seen.port}/a"
    command = ["curl", "-s", "--http2", "--max-time", "10", "-d", '{"title":"t"}', *split, url, url]
    assert await asyncio.to_thread(subprocess.check_output, command) == b"13" * 2
    assert seen.requests == [("POST /a", b'{"title":"t"}')] * 2


async def test_a_client_of_http_1_0_is_sent_no_chunks(seen: Seen) -> None:
    old = b"GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    head, _, body = (await exchange(seen, old)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"piecepiece"
    got = await exchange(seen, b"POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    assert b"content-length: 1\r\n" in got
    assert got.endswith(b"\r\n\r\n3")
    assert b"transfer-encoding: chunked" in await exchange(seen, old.replace(b"1.0", b"1.1") + LAST)


async def test_trailers_do_not_become_headers_of_the_running_request(seen: Seen) -> None:
    sent = b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-User: admin\r\n\r\n"
    assert statuses(await exchange(seen, sent + LAST)) == [200, 200]
    assert seen.requests[0] == ("POST /a", b"hello")
    assert b"x-user" not in dict(seen.scopes[0]["headers"])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /a HTTP/1.1\r\nHost t\r\n\r\n", 400),
        (b"GET /a HTTP/9.9\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\n" + H2C + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n", 501),
    ],
)
async def test_what_the_server_itself_refuses_is_a_problem_with_a_request_id(
    seen: Seen, sent: bytes, status: int
) -> None:
    first = b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n"
    for before, answered in ((b"", []), (first, [200])):  # the answer to the one before is not lost
        got = await exchange(seen, before + sent)
        assert statuses(got) == [*answered, status]
        head, _, body = got[got.rindex(b"HTTP/1.1 %d" % status) :].partition(b"\r\n\r\n")
        problem = json.loads(body)
        assert (problem["status"], len(problem["request_id"])) == (status, 32)
        assert f"x-request-id: {problem['request_id']}".encode() in head
        assert b"content-type: application/problem+json" in head
        assert b"connection: close" in head
        assert b"x-content-type-options: nosniff" in head


async def test_a_broken_body_gets_one_answer_or_ends_the_one_that_has_begun(seen: Seen) -> None:
    broken = b"POST /%b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    assert statuses(await exchange(seen, broken % b"a", b"zz\r\n")) == [400]
    assert seen.gone.is_set()
    seen.gone.clear()
    got = await exchange(seen, broken % b"stream", b"zz\r\n")
    assert statuses(got) == [200]
    assert got.endswith(b"begun\r\n")
    await asyncio.wait_for(seen.gone.wait(), 10)
    # One that waits for its turn is answered in its turn.
    got = await exchange(seen, SMUGGLED + broken % b"a", b"zz\r\n")
    assert statuses(got) == [200, 400]
    assert seen.requests == [("GET /smuggled", b"")]


@pytest.mark.parametrize("path", [b"early", b"close"])
async def test_who_sends_all_of_a_body_before_reading_gets_the_answer_that_came_early(seen: Seen, path: bytes) -> None:
    size = 8 * 2**20
    async with connection(seen) as (reader, writer):
        writer.write(b"POST /%b HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % (path, size))
        for _ in range(8):
            writer.write(bytes(size // 8))
            await writer.drain()
            await asyncio.sleep(0.01)
        if path == b"early":  # the connection goes on
            writer.write(LAST)
        got = await asyncio.wait_for(reader.read(), 10)
    assert statuses(got) == ([200, 200] if path == b"early" else [200])


@pytest.mark.parametrize("line", [b"POST /early HTTP/1.1", b"POST /close HTTP/1.1", b"nonsense"])
@pytest.mark.parametrize("bound", ["seconds", "bytes"])
async def test_discarding_is_bounded(seen: Seen, monkeypatch: pytest.MonkeyPatch, line: bytes, bound: str) -> None:
    monkeypatch.setattr(protocol, "DISCARD_SECONDS", 0.2 if bound == "seconds" else 60)
    monkeypatch.setattr(protocol, "DISCARD_BYTES", 2**40 if bound == "seconds" else 2**20)
    async with connection(seen) as (_, writer):
        writer.write(line + b"\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % 2**40)

        async def send() -> None:
            while True:
                writer.write(bytes(2**16))
                await writer.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send(), 10)
    await until(lambda: not seen.state.connections)


async def test_a_stream_ends_with_its_connection_although_a_request_waits_behind_it(seen: Seen) -> None:
    async with connection(seen) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n" + SMUGGLED)
        await asyncio.wait_for(reader.readuntil(b"begun"), 10)
    await asyncio.wait_for(seen.gone.wait(), 10)


async def test_a_stop_does_not_wait_for_what_is_being_discarded(seen: Seen) -> None:
    async with connection(seen):
        server = await only_connection(seen)
        server.data_received(b"POST /close HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n")
        await until(lambda: isinstance(server.parser, protocol._Discard))
        server.shutdown()
        assert server.transport.is_closing()


async def test_a_connection_that_comes_while_the_server_ends_gets_one_answer(seen: Seen) -> None:
    async with connection(seen):
        (await only_connection(seen)).shutdown()
        got = await exchange(seen, request_that(b"", "by length"))  # until the server closes
    assert statuses(got) == [200]
    assert b"connection: close" in got.lower()
