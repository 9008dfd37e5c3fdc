"""The question whether a password is known from a breach, asked of a server in this process."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from passlib.context import CryptContext
from pydantic import HttpUrl, SecretStr
from structlog.testing import capture_logs

from tristore import breaches
from tristore.breaches import Breaches
from tristore.errors import InvalidInput
from tristore.passwords import PasswordHasher

PASSWORD = "correct horse 9"
DIGEST = hashlib.sha1(PASSWORD.encode()).hexdigest().upper()
OTHER = "0018A45C4D1DEF81644B54AB7F969B88D65"


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[HttpUrl, list[str]]]:
    """The URL of a server that says this, or None for nothing at all, and the heads of what it was asked."""
    heads: list[str] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        try:
            yield HttpUrl(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/range/"), heads
        finally:
            over.set()


def listed(*lines: str) -> bytes:
    body = "\r\n".join(lines)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def test_a_known_password_is_refused_and_only_five_digits_are_told() -> None:
    async with answering(listed(f"{OTHER}:7", f"{DIGEST[5:]}:3")) as (url, heads):
        hasher = PasswordHasher("service", CryptContext(schemes=["plaintext"]), url)
        with pytest.raises(InvalidInput, match="stolen elsewhere") as refused:
            await hasher.refuse_weak(SecretStr(PASSWORD), "password", ())
    assert refused.value.field == "password"
    assert heads[0].startswith(f"GET /range/{DIGEST[:5]} HTTP/1.1\r\n")
    assert "add-padding: true" in heads[0].lower()
    assert DIGEST[5:10] not in heads[0].upper().removeprefix("GET")
    assert PASSWORD not in heads[0]


@pytest.mark.parametrize("lines", [[], [f"{OTHER}:7"], [f"{DIGEST[5:]}:0"], ["<html>"]], ids=str)
async def test_one_that_is_not_listed_or_is_padding_is_taken(lines: list[str]) -> None:
    async with answering(listed(*lines)) as (url, _):
        with capture_logs() as logs:
            assert not await Breaches(url).know(PASSWORD)
    assert not logs


@pytest.mark.parametrize(
    "answer", [None, b"", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"], ids=str
)
async def test_without_an_answer_it_is_taken_and_one_line_is_logged(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaches, "SECONDS", 0.2)
    async with answering(answer) as (url, heads):
        with capture_logs() as logs:
            assert not await Breaches(url).know(PASSWORD)
    assert len(heads) == 1
    [line] = logs
    assert line["event"] == "breach_check_failed"
    assert line.keys() == {"event", "log_level", "cause"}


async def test_nobody_is_asked_unless_an_url_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(breaches, "urlopen", ask)
    assert not await Breaches(None).know(PASSWORD)


async def test_a_refusal_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an answer, and holds the connection: the garbage collector would find it some day, and may warn."""
    refusals: list[HTTPError] = []

    def note(request: Request, timeout: float) -> object:
        try:
            return urlopen(request, timeout=timeout)
        except HTTPError as error:
            refusals.append(error)
            raise

    monkeypatch.setattr(breaches, "urlopen", note)
    async with answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy") as (url, _):
        assert not await Breaches(url).know(PASSWORD)
    [refusal] = refusals
    assert refusal.closed
