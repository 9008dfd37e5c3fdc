"""Send a request until it is answered, through lost answers, limits and outages. What it asks for is done once.

async with httpx.AsyncClient(base_url=API, transport=Retry()) as client: ...
"""

import asyncio
import random
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

TRIES = 8
LONGEST_WAIT_SECONDS = 30


class Retry(httpx.AsyncBaseTransport):
    """Sends the same request again when there is no answer, or one with `Retry-After`, and waits as long as that says.
    A POST without an `Idempotency-Key` gets one, the same for all its tries: by it the server knows it again.

    After eight tries, or when it should wait for longer than 30 s, what has come is given: the last answer, or an
    httpx.TransportError. It reads each answer to its end: a stream of events needs a client of its own (follow.py)."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            request.headers.setdefault("Idempotency-Key", str(uuid.uuid4()))
        for failures in range(TRIES - 1):
            wait = min(LONGEST_WAIT_SECONDS, 0.5 * 2**failures) * random.uniform(0.5, 1)
            try:
                answer = await self._send(request)
                seconds = seconds_in(answer.headers.get("Retry-After", ""))
                if seconds is None or seconds > LONGEST_WAIT_SECONDS:
                    return answer
                wait = max(wait, seconds)
            except httpx.TransportError:
                pass  # nobody knows whether it was done
            await asyncio.sleep(wait)
        return await self._send(request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        answer = await self._transport.handle_async_request(request)
        await answer.aread()  # the connection may break in the middle of it
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()


def seconds_in(retry_after: str) -> float | None:
    """A proxy may send a date instead."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
