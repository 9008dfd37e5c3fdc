"""What one process tells all others, and which of them have heard it."""

import asyncio
import time
from collections.abc import Set
from dataclasses import dataclass, field


@dataclass(eq=False)
class Announcement:
    """A message that a script publishes, and which processes have heard it."""

    channel: str
    text: str
    told: int = 0
    """How many subscribers Redis counted when it took the message."""
    taken_at: float = field(default_factory=time.monotonic)
    """Not before Redis took it."""
    taken_by: str = ""
    """Which server of a cluster took it."""
    heard_by: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def is_taken(self, told: int) -> None:
        self.told, self.taken_at = told, time.monotonic()

    def note(self, process: str) -> None:
        self.heard_by.add(process)
        self.news.set()

    async def wait_for(self, processes: Set[str]) -> None:
        """Until these have heard it, and as many as Redis counted."""
        while len(self.heard_by) < self.told or not processes <= self.heard_by:
            self.news.clear()
            await self.news.wait()
