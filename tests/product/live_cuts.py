"""Clients of live messages whose connections are cut at every point: in the head, in the first frame, in and between
events, and before any answer."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from tristore.testing.lab import App, until
from tristore.testing.proxy import proxy_to

CUTS = int(os.environ.get("CUTS", "200"))
SEED = int(os.environ.get("SEED", "1"))
LONGEST = 1200
"""Bytes: the head, the first frame and some events."""
SETTINGS = {"LIVE_RETRY_SECONDS": "0.001", "LIVE_MAX_PER_USER": "1000"}

Follow = Callable[[str, str, dict[str, str], int | None, Callable[[int], None]], Awaitable[object]]
"""Follows a conversation: the API's address, the conversation's id, headers, the number of the last message that it
has, and what it gives the number of each message to."""


async def follow_through_cuts(app: App, path: str, headers: dict[str, str], follow: Follow) -> None:
    """Messages are posted at any moment, while one client that has none and one that begins with what comes are cut
    off. Fails when one of them misses a message, or is given one twice or out of order."""
    chance = random.Random(SEED)
    id_, all_numbers, later_numbers = path.rpartition("/")[2], list[int](), list[int]()
    port = app.client.base_url.port
    assert port
    async with proxy_to(port) as proxy:
        proxy.cut_after = lambda: chance.randrange(LONGEST)
        base = f"http://127.0.0.1:{proxy.port}"
        clients = [
            asyncio.ensure_future(follow(base, id_, headers, 0, all_numbers.append)),
            asyncio.ensure_future(follow(base, id_, headers, None, later_numbers.append)),
        ]
        posted = 0
        while proxy.cuts < CUTS or not later_numbers:
            posted += 1
            content = chance.choice(["a", "b\u2028c\u0085d", "e" * chance.randint(1, 300)])
            await _post(app, path, headers, {"id": f"m-{posted}", "content": content})
            await asyncio.sleep(chance.expovariate(100))
            assert not any(client.done() for client in clients), clients
        proxy.cut_after = lambda: float("inf")
        async with asyncio.timeout(30):
            while not all(numbers and numbers[-1] == posted for numbers in (all_numbers, later_numbers)):
                await asyncio.sleep(0.02)
        for client in clients:
            client.cancel()
            with suppress(asyncio.CancelledError):
                await client
    assert all_numbers == list(range(1, posted + 1))
    assert later_numbers == all_numbers[later_numbers[0] - 1 :]


async def _post(app: App, path: str, headers: dict[str, str], message: dict[str, str]) -> None:
    # A busy machine may be late: the same message is then sent again.
    answered = partial(_is_taken, app, f"{path}/messages", headers, message)
    await until(answered, 10)


async def _is_taken(app: App, path: str, headers: dict[str, str], message: dict[str, str]) -> bool:
    answer = await app.client.post(path, headers=headers, json=message)
    assert answer.is_success or answer.status_code == 503, answer.text
    return answer.is_success
