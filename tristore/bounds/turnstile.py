"""A few at a time, the others in line."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count

from tristore.errors import Overloaded, StoreUnavailable

Place = tuple[int, int, asyncio.Future[None]]
"""In line: its round, when it came, and what it waits for."""


class Turnstile:
    """Lets in a few at a time. Under load those are served in time. All at once would all be too late. Whoever has
    stood in line for `patience_seconds` is sent away. When one of those inside finds a store unavailable, all in line
    are told so: one after the other they would wait for it many times as long.

    Whoever sends many delays only their own: each round lets in one of each (`who`), and within a round it is first
    come, first served. That is start-time fair queueing (Goyal, Vin, Cheng 1996) with work of equal size. Whoever
    `is_known` need not wait for the round of the others."""

    def __init__(self, places: int, patience_seconds: float) -> None:
        self._free = places
        self._patience_seconds = patience_seconds
        self._line: list[Place] = []
        self._arrivals = count()
        self._round = 0
        self._last_rounds: dict[str, int] = {}
        """Of those who stand in line: the round of their last place."""
        self._refusal: tuple[float, StoreUnavailable] | None = None

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return sum(not place[2].done() for place in self._line)

    @asynccontextmanager
    async def turn(self, who: str = "", is_known: bool = False) -> AsyncIterator[None]:
        """Raises Overloaded. Raises StoreUnavailable when a store was found so while this caller stood in line."""
        came = time.monotonic()
        await self._stand_in_line(who, is_known)
        try:
            self._raise_refusal_since(came)
            try:
                yield
            except StoreUnavailable as error:
                self._refusal = time.monotonic(), error
                raise
        finally:
            self._let_in_another()

    async def _stand_in_line(self, who: str, is_known: bool) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # As if nobody else had come, but never before his own last one.
        mine = self._last_rounds[who] = max(self._round + (not is_known), self._last_rounds.get(who, -1) + 1)
        heappush(self._line, (mine, next(self._arrivals), turn))
        try:
            async with asyncio.timeout(self._patience_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as end:
            if turn.done() and not turn.cancelled():
                self._let_in_another()  # it had come, and is not taken
            if isinstance(end, TimeoutError):
                raise Overloaded from None
            raise
        finally:
            if self._last_rounds.get(who) == mine:
                del self._last_rounds[who]

    def _let_in_another(self) -> None:
        while self._line:
            self._round, _, turn = heappop(self._line)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _raise_refusal_since(self, came: float) -> None:
        if self._refusal and self._refusal[0] > came:
            found = self._refusal[1]
            raise StoreUnavailable(found.store, found.reason, found.cause)
