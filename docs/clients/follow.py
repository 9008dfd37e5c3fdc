"""Follow a conversation: each message once and in order, however often the connection is cut.

async with httpx.AsyncClient(base_url=API, headers={"Authorization": f"Bearer {token}"}) as client:
    status = await follow(client, conversation_id, show)
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

Handler = Callable[[Any], Awaitable[object]]
LONGEST_WAIT_SECONDS = 30


async def follow(
    client: httpx.AsyncClient,
    conversation_id: str,
    on_message: Handler,
    on_reset: Handler | None = None,
    after: int | None = None,
    idle_seconds: float = 30,
) -> int:
    """Give `on_message` each message that follows number `after`, or that comes from now on. Returns the status that
    says why it is over: 401 (sign in again) or 404. Raises httpx.HTTPStatusError for another refusal, and whatever a
    handler raises; a message counts as handled when its handler has returned.

    `on_reset` gets `{"last_seq": ...}` when the conversation has fewer messages than `after`, as after a restore from a
    backup: read it anew up to that number. After `idle_seconds` without a byte the connection counts as dead; a sign of
    life comes every 15 s at the latest."""
    failures, retry = 0, 1.0
    while True:
        wait = 0.0
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        timeout = httpx.Timeout(10, read=idle_seconds)
        path = f"/conversations/{conversation_id}/events"
        try:
            async with client.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if answer.status_code in {401, 404}:
                    return answer.status_code
                if (after_seconds := answer.headers.get("Retry-After", "")).isdigit():
                    wait = float(after_seconds)
                if answer.status_code != 429 and answer.status_code < 500:
                    answer.raise_for_status()
                if answer.is_success:
                    async for event in _events(answer):
                        if event.get("event") == "message":
                            await on_message(json.loads(event["data"]))
                        elif event.get("event") == "reset" and on_reset:
                            await on_reset(json.loads(event["data"]))
                        failures, after = 0, int(event["id"])
                        retry = int(event.get("retry", retry * 1000)) / 1000
        except httpx.TransportError:
            pass  # the network: come back
        backoff = min(LONGEST_WAIT_SECONDS, retry * 2**failures) * random.uniform(0.5, 1)
        failures = min(failures + 1, 10)
        await asyncio.sleep(max(wait, backoff))


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The fields of each event that came whole. Events are ASCII, so that splitting by lines breaks none."""
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line and event:
            yield event
            event = {}
        elif line and not line.startswith(":"):  # a comment is a sign of life
            name, _, value = line.partition(": ")
            event[name] = value
