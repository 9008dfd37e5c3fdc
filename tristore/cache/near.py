"""What this process has read from Redis a moment ago: the next reader of it needs no round trip.

A feed tells what has changed. An entry is served only while that feed is known to live. It is served no longer than its
ceiling: nobody tells when the entry in Redis ends. A reader claims the key before it asks Redis, and a change takes the
claim away. So an answer that is under way when the change comes is not kept. `docs/consistency.md` says what this
promises.
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
    """The bytes of the entries that were read last, by the keys of the cache."""

    def __init__(self, entries: int, is_fed: Callable[[], bool]) -> None:
        """`entries`: how many it keeps at most. `is_fed` tells whether the feed of changes lives."""
        self._size = entries
        self._is_fed = is_fed
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # a plain dict takes long to find its first key
        self._claims: dict[str, Claim] = {}

    def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None or entry.until < time.monotonic() or not self._is_fed():
            return None
        return entry.body

    def claim(self, key: str) -> Claim:
        """Take it before you ask Redis, and release it in the end. Readers of the same key share it."""
        return self._claims.setdefault(key, Claim(time.monotonic()))

    def keep(self, key: str, claim: Claim, body: bytes, ceiling_seconds: float) -> None:
        """Keep what was read under the claim, unless it has changed since. The seconds count from the claim."""
        if self._claims.get(key) is not claim:
            return
        del self._claims[key]
        if not self._is_fed():
            return
        self._entries[key] = Entry(body, claim.at + ceiling_seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)  # the oldest

    def release(self, key: str, claim: Claim) -> None:
        """Release the claim. Call it even when nothing was kept."""
        if self._claims.get(key) is claim:
            del self._claims[key]

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these keys and their claims: they have changed."""
        for key in keys:
            self._entries.pop(key, None)
            self._claims.pop(key, None)

    def clear(self) -> None:
        """Forget everything: something may have changed of which nobody told."""
        self._entries.clear()
        self._claims.clear()
