"""A few at a time, the others in line."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter

from tristore.errors import Overloaded, StoreUnavailable


class Turnstile:
    """Lets in a few at a time, first come, first served. Under load those are served in time. All at once would all be
    too late. Whoever has stood in line for `patience_seconds` is sent away. When one of those inside finds a store
    unavailable, all in line are told so: one after the other they would wait for it many times as long."""

    def __init__(self, places: int, patience_seconds: float) -> None:
        self._limiter = CapacityLimiter(places)
        self._patience_seconds = patience_seconds
        self._refusal: tuple[float, StoreUnavailable] | None = None

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Overloaded. Raises StoreUnavailable when a store was found so while this caller stood in line."""
        came = time.monotonic()
        await self._stand_in_line()
        try:
            self._raise_refusal_since(came)
            try:
                yield
            except StoreUnavailable as error:
                self._refusal = time.monotonic(), error
                raise
        finally:
            self._limiter.release()

    async def _stand_in_line(self) -> None:
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._limiter.acquire()
        except TimeoutError:
            raise Overloaded from None

    def _raise_refusal_since(self, came: float) -> None:
        if self._refusal and self._refusal[0] > came:
            found = self._refusal[1]
            raise StoreUnavailable(found.store, found.reason, found.cause)
