"""What this process has changed and Redis may not know yet: an entry that is older is not believed."""

import time
from collections import OrderedDict

KEYS = 10_000


class LeastVersions:
    """By key, from before an invalidation is tried until it has got through."""

    def __init__(self, entry_seconds: float, keys: int = KEYS) -> None:
        """`entry_seconds`: the longest time that an entry stays in Redis. After it no entry from before is left."""
        self._entry_seconds = entry_seconds
        self._keys = keys
        self._required: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._complete_at = 0.0

    @property
    def is_complete(self) -> bool:
        """False after there were too many keys to remember them all. Then no entry may be believed for as long as an
        entry can live."""
        return time.monotonic() >= self._complete_at

    def require(self, key: str, version: int) -> None:
        """Do not believe an older entry from now on."""
        now = time.monotonic()
        self._required[key] = (max(version, self._required.get(key, (0, 0))[0]), now + self._entry_seconds)
        self._required.move_to_end(key)
        while (oldest := next(iter(self._required.values()), None)) and oldest[1] < now:
            self._required.popitem(last=False)
        if len(self._required) > self._keys:
            self._required.popitem(last=False)
            self._complete_at = now + self._entry_seconds

    def release(self, key: str, version: int) -> None:
        """Redis knows of this version."""
        if key in self._required and self._required[key][0] <= version:
            del self._required[key]

    def of(self, key: str) -> int:
        """The oldest version of an entry that may be believed. 0 when any may."""
        required, until = self._required.get(key, (0, 0))
        return required if time.monotonic() < until else 0
