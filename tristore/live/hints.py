"""Hints: which of the many things that a caller follows have moved. The client reads what it wants of them.

A hint is a key and the present number of what it stands for. There is no order between keys, and so nothing to resume:
each connection begins with the present state, and a lost hint is made up for by the next one of its key. What moves
while a client is slow is one hint.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Unpack

from tristore.errors import StoreUnavailable
from tristore.live.listeners import Listener, Listeners, LiveSettings

NEWEST = 100
"""A connection begins with so many hints at most."""
TOLD = 1_000
"""Of so many keys a listener remembers what it was told. Beyond that some hints come twice."""


@dataclass(frozen=True, slots=True)
class Hint:
    key: str
    seq: int


class HintSource(Protocol):
    """Things with numbers that only grow, each under a key, and each of one name. Its methods raise
    StoreUnavailable."""

    async def newest(self, name: str, limit: int) -> Collection[str]:
        """The keys of what moved last, newest first."""

    async def numbers(self, keys: Collection[str]) -> Mapping[str, int]:
        """Their present numbers, of those that are above zero."""

    async def moved(self, names: Collection[str], seconds: float) -> Iterable[tuple[str, str, int]]:
        """Name, key and its present number, for each that moved within so many seconds."""


@dataclass(slots=True)
class _State:
    moved: dict[str, None] = field(default_factory=dict)
    """Keys to look at, in order."""
    told: dict[str, int] = field(default_factory=dict)

    def news(self, keys: Iterable[str], numbers: Mapping[str, int]) -> Iterator[Hint]:
        if len(self.told) > TOLD:
            self.told.clear()
        for key in keys:
            number = numbers.get(key, 0)
            if number > self.told.get(key, -1):
                self.told[key] = number
                yield Hint(key, number)


class HintService(Listeners[Hint]):
    """Streams of hints. A wake-up of `name:key` tells that this key of the listeners to `name` has moved."""

    has_ids = False

    def __init__(self, source: HintSource, **settings: Unpack[LiveSettings]) -> None:
        super().__init__(**settings)
        self._source = source
        self._states: dict[Listener, _State] = {}

    async def _place(self, listener: Listener, after: int | None) -> None:
        state = self._states[listener] = _State()  # before anything is read: what moves in between is noted
        listener.woken.set()
        state.moved |= dict.fromkeys(await self._source.newest(listener.name, NEWEST))

    async def _page(self, listener: Listener) -> Sequence[Hint]:
        state = self._states[listener]
        if not (moved := state.moved):
            return []
        state.moved = {}
        async with self._reading:
            try:
                numbers = await self._source.numbers(moved)
            except StoreUnavailable:
                state.moved = moved | state.moved
                return []
        return list(state.news(moved, numbers))

    def _unregister(self, listener: Listener) -> None:
        super()._unregister(listener)
        del self._states[listener]

    def _wake(self, names: Iterable[str]) -> None:
        names = list(names)
        super()._wake(names)
        for name, _, key in (name.rpartition(":") for name in names):
            for listener in self._by_name.get(name, ()):
                self.counts["woken"] += 1
                self._note(listener, key)

    def _note(self, listener: Listener, key: str) -> None:
        self._states[listener].moved[key] = None
        listener.woken.set()

    async def _wake_those_behind(self, seconds: float) -> None:
        if self._listeners:
            names = {listener.name for listener in self._listeners}
            for name, key, number in await self._source.moved(names, seconds):
                for listener in self._by_name.get(name, ()):
                    if number > self._states[listener].told.get(key, -1):
                        self.counts["found_behind"] += 1
                        self._note(listener, key)
        for listener in self._listeners:
            if self._states[listener].moved:  # of what could not be read before
                listener.woken.set()
