"""What this process read from Redis a moment ago, so that the next reader of it needs no round trip.

Redis pushes what changes. An entry is served only while that feed is known to live, and never longer than its ceiling
after it was read: its copy in Redis may have ended, of which nobody tells. A reader claims the key before it asks
Redis, and a change takes the claim away: so an answer that was under way when the change came is not kept. What it
promises: docs/consistency.md.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Claim:
    """The right to keep what is read from now on."""

    at: float


@dataclass(eq=False, slots=True)
class Entry:
    body: bytes
    until: float


class NearCache:
    """Keys are the cache's. `is_fed` tells whether the feed of changes lives. Times are seconds."""

    def __init__(self, entries: int, is_fed: Callable[[], bool]) -> None:
        self._size = entries
        self._is_fed = is_fed
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # a dict looks long for its first
        self._claims: dict[str, Claim] = {}

    def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None or entry.until < time.monotonic() or not self._is_fed():
            return None
        return entry.body

    def claim(self, key: str) -> Claim:
        """To be taken before Redis is asked, and let go in the end. Readers of the same key share it."""
        return self._claims.setdefault(key, Claim(time.monotonic()))

    def keep(self, key: str, claim: Claim, body: bytes, ceiling: float) -> None:
        """Keep what was read under the claim, unless it has changed since."""
        if self._claims.get(key) is not claim:
            return
        del self._claims[key]
        if not self._is_fed():
            return
        self._entries[key] = Entry(body, claim.at + ceiling)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)  # the oldest

    def let_go(self, key: str, claim: Claim) -> None:
        """Whether or not anything was kept under it."""
        if self._claims.get(key) is claim:
            del self._claims[key]

    def drop(self, keys: Iterable[str]) -> None:
        """They have changed."""
        for key in keys:
            self._entries.pop(key, None)
            self._claims.pop(key, None)

    def clear(self) -> None:
        """Something may have changed without a word."""
        self._entries.clear()
        self._claims.clear()
