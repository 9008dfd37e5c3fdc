"""Whether the machine gave the lab its time. What is late on a starved one is nobody's fault."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

BEAT_SECONDS = 0.05
LATE_SECONDS = 0.25
"""A beat that comes so late has not waited for the lab's own work: that takes some 0.1 s at most."""
STARVED_SECONDS = 0.25
"""Who has lost so much of some two seconds may be late."""


class Machine:
    """`apps` are the ids of their processes."""

    def __init__(self, apps: Callable[[], Iterable[int]] = lambda: ()) -> None:
        self._apps = apps
        self._waited: dict[int, float] = {}
        self._lost: list[tuple[float, float]] = []
        """When, and seconds."""
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
        """Seconds in which the lab's own loop stood still, or an app had work to do and no core to do it."""
        return sum(seconds for at, seconds in self._lost if start <= at <= end)

    def was_starved(self, at: float) -> bool:
        """Whether who was late at that time may have been. It is counted as spared then."""
        is_spared = self.lost_between(at - 2, at) > STARVED_SECONDS
        self.spared += is_spared
        return is_spared

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
            self.beat(due, time.monotonic(), self._waited_since())

    def beat(self, due: float, came: float, waited: float = 0) -> None:
        late = came - due
        if lost := max(waited, late if late > LATE_SECONDS else 0):
            self._lost.append((came, lost))

    def _waited_since(self) -> float:
        """Seconds since the last time for which the app that fared worst waited for a core, where the kernel tells."""
        worst = 0.0
        for pid in self._apps():
            with suppress(OSError, IndexError):
                waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
                worst = max(worst, waited - self._waited.get(pid, waited))
                self._waited[pid] = waited
        return worst
