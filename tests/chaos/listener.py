"""A listener to one conversation that begins at its first message and comes back whenever it is cut off."""

import asyncio
from collections.abc import Sequence

import httpx

from tests.chaos.arena import AppProcess
from tristore.testing.live import NotOpened, Stream, connect

BEFORE_COMING_BACK = 0.3
OPENING_SECONDS = 3.0


class Listener:
    def __init__(self, apps: Sequence[AppProcess], first: int, conversation: str, token: str) -> None:
        self._apps = apps
        self._next = first
        self.conversation, self.token = conversation, token
        self._headers = {"Authorization": f"Bearer {token}"}
        self._streams: list[Stream] = []
        self._task = asyncio.create_task(self._listen())

    @property
    def seen(self) -> list[tuple[int, str]]:
        """Number and content of each message, as they came."""
        return [(event.id, event.decoded["content"]) for stream in self._streams for event in stream.events]

    @property
    def numbers(self) -> list[int]:
        return [number for stream in self._streams for number in stream.ids]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_over(self) -> bool:
        """Whether it was told to go for good: its session or its conversation has ended."""
        return self._task.done()

    async def _listen(self) -> None:
        while True:
            try:
                await self._read_one_stream()
            except NotOpened as refusal:
                if refusal.status in {401, 404}:
                    return
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(BEFORE_COMING_BACK)

    async def _read_one_stream(self) -> None:
        app = self._apps[self._next % len(self._apps)]
        self._next += 1
        path = f"/conversations/{self.conversation}/events"
        numbers = self.numbers
        async with asyncio.timeout(OPENING_SECONDS):
            base = httpx.URL(f"http://127.0.0.1:{app.port}")
            stream, reader, writer = await connect(base, path, self._headers, after=numbers[-1] if numbers else 0)
        self._streams.append(stream)
        try:
            await stream.read(reader)
        finally:
            writer.transport.abort()
