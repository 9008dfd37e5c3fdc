"""A few at a time, the others in line."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter

from services.errors import StoreUnavailable


class Turnstile:
    """Lets in a few at a time, first come, first served. When one of them finds a store unavailable, all in line are
    told so at once: one after the other they would wait for it many times as long as a request may."""

    def __init__(self, places: int) -> None:
        self._limiter = CapacityLimiter(places)
        self._refusal: tuple[float, StoreUnavailable] | None = None

    @property
    def waiting(self) -> int:
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises StoreUnavailable when it was found so while this one stood in line."""
        came = time.monotonic()
        async with self._limiter:
            if self._refusal and self._refusal[0] > came:
                raise StoreUnavailable(self._refusal[1].store, self._refusal[1].reason)
            try:
                yield
            except StoreUnavailable as error:
                self._refusal = time.monotonic(), error
                raise
