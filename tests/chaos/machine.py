"""Whether the machine gave the lab its time. What is late on a starved one is nobody's fault."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BEAT_SECONDS = 0.05
STARVED_SECONDS = 0.25
"""A beat that comes so late has not waited for the lab's own work: that takes some 0.1 s at most."""


class Machine:
    def __init__(self) -> None:
        self._gaps: list[tuple[float, float]] = []
        """In which the lab's own loop came to nothing, as it ought to have."""
        self.spared = 0
        """What was late and not held against the app."""

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Machine"]:
        watching = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            watching.cancel()

    def lost_between(self, start: float, end: float) -> float:
        """Seconds."""
        return sum(max(0.0, min(end, over) - max(start, due)) for due, over in self._gaps)

    @property
    def lost(self) -> float:
        return self.lost_between(0, float("inf"))

    @property
    def load(self) -> float:
        """Of each core, over the last minute."""
        return os.getloadavg()[0] / (os.cpu_count() or 1)

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self.beat(due, time.monotonic())

    def beat(self, due: float, came: float) -> None:
        if came - due > STARVED_SECONDS:
            self._gaps.append((due, came))
