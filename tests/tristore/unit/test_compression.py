"""Which answers are compressed, and what else changes with them."""

import gzip
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tristore.http.compression import IN_THREAD_BYTES, SMALLEST_BYTES, Compression

LARGE = {"text": "é" * SMALLEST_BYTES}


def json_of(size: int) -> bytes:
    return json.dumps("x" * (size - 2)).encode()


async def pieces() -> AsyncIterator[bytes]:
    yield b"[" + b"0," * SMALLEST_BYTES
    yield b"0]"


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(Compression)

    @app.get("/of/{size}")
    async def sized(size: int) -> Response:
        return Response(json_of(size), media_type="application/json", headers={"ETag": '"1"', "Vary": "Origin"})

    @app.api_route("/json", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def large() -> JSONResponse:
        return JSONResponse(LARGE)

    @app.get("/text")
    async def text() -> Response:
        return PlainTextResponse("x" * SMALLEST_BYTES)

    @app.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(pieces(), media_type="application/json")

    @app.get("/events")
    async def events() -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers.clear()
        yield client


async def raw(client: httpx.AsyncClient, method: str, path: str, accepted: str) -> tuple[httpx.Response, bytes]:
    async with client.stream(method, path, headers={"Accept-Encoding": accepted}) as answer:
        return answer, b"".join([piece async for piece in answer.aiter_raw()])


@pytest.mark.parametrize("size", [SMALLEST_BYTES, IN_THREAD_BYTES, 10 * IN_THREAD_BYTES])
async def test_large_json_is_compressed(client: httpx.AsyncClient, size: int) -> None:
    answer, body = await raw(client, "GET", f"/of/{size}", "br, gzip")
    assert gzip.decompress(body) == json_of(size)
    assert len(body) < size / 10
    assert (answer.headers["Content-Encoding"], int(answer.headers["Content-Length"])) == ("gzip", len(body))
    assert answer.headers["Vary"] == "Origin, Accept-Encoding"
    assert answer.headers["ETag"] == 'W/"1"'  # other bytes for the same state


async def test_a_small_answer_is_left_as_it_is(client: httpx.AsyncClient) -> None:
    answer, body = await raw(client, "GET", f"/of/{SMALLEST_BYTES - 1}", "gzip")
    assert body == json_of(SMALLEST_BYTES - 1)
    assert "Content-Encoding" not in answer.headers
    assert (answer.headers["Vary"], answer.headers["ETag"]) == ("Origin", '"1"')


@pytest.mark.parametrize("accepted", ["", "br", "identity", "gzip;q=0", "gzip; q=0.000", "gzip;\tq=0", "x-gzipped"])
async def test_who_does_not_take_gzip_is_sent_none_and_caches_are_told(
    client: httpx.AsyncClient, accepted: str
) -> None:
    answer, body = await raw(client, "GET", f"/of/{SMALLEST_BYTES}", accepted)
    assert body == json_of(SMALLEST_BYTES)
    assert "Content-Encoding" not in answer.headers
    assert (answer.headers["Vary"], answer.headers["ETag"]) == ("Origin, Accept-Encoding", '"1"')


@pytest.mark.parametrize("accepted", ["gzip", "GZIP", "deflate,gzip;q=0.5", " gzip ; q=0.001"])
async def test_who_takes_it_may_say_so_in_many_ways(client: httpx.AsyncClient, accepted: str) -> None:
    _, body = await raw(client, "GET", "/json", accepted)
    assert json.loads(gzip.decompress(body)) == LARGE


async def test_who_takes_it_may_say_so_on_a_line_of_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.get("/json", headers=[("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")])
    assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_an_answer_that_may_hold_a_secret_beside_the_callers_text_is_not(
    client: httpx.AsyncClient, method: str
) -> None:
    answer, body = await raw(client, method, "/json", "gzip")
    assert json.loads(body) == LARGE
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/text", "/stream", "/events"])
async def test_streams_and_what_is_not_json_are_left_as_they_are(client: httpx.AsyncClient, path: str) -> None:
    answer, body = await raw(client, "GET", path, "gzip")
    assert body[:1] in (b"x", b"[")
    assert not {"Content-Encoding", "Vary"} & {name.title() for name in answer.headers}
