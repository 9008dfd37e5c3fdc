"""The guide's way to send a request until it is answered."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from docs.clients.retries import Retry

Answer = httpx.Response | Exception


class Server:
    """Gives the next answer, or none, and keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[tuple[float, str, bytes]] = []
        self._answers = iter(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((time.monotonic(), request.headers.get("Idempotency-Key", ""), request.content))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://test", transport=Retry(httpx.MockTransport(server)))


async def test_sends_the_same_again_when_there_is_no_answer() -> None:
    server = Server(httpx.ReadError("cut"), httpx.ReadTimeout("late"), httpx.Response(201, json={"id": 1}))
    async with client_of(server) as client:
        answer = await client.post("/things", json={"name": "one"})
    assert (answer.status_code, answer.json()) == (201, {"id": 1})
    [(_, key, body), *others] = server.asked
    assert (len(key), body) == (36, b'{"name":"one"}')
    assert [(key, body)] * 2 == [asked[1:] for asked in others]


async def test_waits_as_long_as_it_is_told() -> None:
    server = Server(httpx.Response(503, headers={"Retry-After": "1"}), httpx.Response(200))
    async with client_of(server) as client:
        assert (await client.get("/things")).status_code == 200
    first, second = server.asked
    assert second[0] - first[0] >= 1
    assert first[1] == ""  # to read something needs no key


async def test_waits_until_a_date_that_a_proxy_sends() -> None:
    dates = [format_datetime(datetime.now(UTC) + timedelta(seconds=later), usegmt=True) for later in (2.5, -60)]
    server = Server(*(httpx.Response(503, headers={"Retry-After": date}) for date in dates), httpx.Response(200))
    async with client_of(server) as client:
        assert (await client.get("/things")).status_code == 200
    (first, *_), (second, *_), (third, *_) = server.asked
    assert second - first > 1  # dates are in whole seconds
    assert third - second < 1.5  # the client's own wait


async def test_a_key_of_the_callers_own_stays() -> None:
    server = Server(httpx.ReadError("cut"), httpx.Response(201))
    async with client_of(server) as client:
        await client.post("/things", headers={"Idempotency-Key": "mine"})
    assert [key for _, key, _ in server.asked] == ["mine", "mine"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(429, headers={"Retry-After": "3600"}),
        httpx.Response(503, headers={"Retry-After": "later"}),
        httpx.Response(409),
        httpx.Response(500),
    ],
)
async def test_gives_what_waiting_does_not_help(answer: httpx.Response) -> None:
    server = Server(answer)
    async with client_of(server) as client:
        assert (await client.get("/things")).status_code == answer.status_code
    assert len(server.asked) == 1
