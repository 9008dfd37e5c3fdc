"""A few at a time, the others in line."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter

from tristore.errors import Overloaded, StoreUnavailable


class Turnstile:
    """Lets in a few at a time, first come, first served, so that under load those are served in time, where all at once
    would all be too late. Who has stood in line for `patience` seconds is sent away. When one of those inside finds a
    store unavailable, all in line are told so: one after the other they would wait for it many times as long."""

    def __init__(self, places: int, patience: float) -> None:
        self._limiter = CapacityLimiter(places)
        self._patience = patience
        self._refusal: tuple[float, StoreUnavailable] | None = None

    @property
    def waiting(self) -> int:
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Overloaded, and StoreUnavailable when it was found so while this one stood in line."""
        came = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                await self._limiter.acquire()
        except TimeoutError:
            raise Overloaded from None
        try:
            self._tell(came)
            try:
                yield
            except StoreUnavailable as error:
                self._refusal = time.monotonic(), error
                raise
        finally:
            self._limiter.release()

    def _tell(self, came: float) -> None:
        if self._refusal and self._refusal[0] > came:
            found = self._refusal[1]
            raise StoreUnavailable(found.store, found.reason, found.cause)
