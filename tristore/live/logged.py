"""Numbered logs as a source of live entries, and of hints at which of them have new ones."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Generic

from tristore.live.source import E
from tristore.stores.mongodb import Document
from tristore.stores.numbered_log import NumberedLog


class LoggedSource(Generic[E]):
    """A `Source` and a `HintSource`. Callers are owners of logs. Names are those of `Names.name`: of a log, or of all
    logs of an owner."""

    def __init__(self, log: NumberedLog, make: Callable[[Document], E]) -> None:
        """`make` gives what listeners get of an entry."""
        self._log = log
        self._make = make

    async def exists(self, name: str, caller: str) -> bool:
        return await self._log.exists(_last(name), caller)

    async def page(self, name: str, limit: int, after: int | None) -> Sequence[E]:
        return [self._make(entry) for entry in await self._log.read(_last(name), limit, after=after)]

    async def last_number(self, name: str) -> int:
        return await self._log.last_number(_last(name))

    async def recent_numbers(self, names: Collection[str], seconds: float) -> Mapping[str, int | None]:
        numbers = await self._log.recent_numbers([_last(name) for name in names], seconds)
        return {name: numbers[_last(name)] for name in names if _last(name) in numbers}

    async def newest(self, name: str, limit: int) -> Collection[str]:
        return await self._log.newest(_last(name), limit)

    async def numbers(self, keys: Collection[str]) -> Mapping[str, int]:
        return await self._log.numbers(keys)

    async def moved(self, names: Collection[str], seconds: float) -> Iterable[tuple[str, str, int]]:
        found = await self._log.moved([_last(name) for name in names], seconds)
        return ((self._log.name(owner), log, number) for owner, log, number in found)


def _last(name: str) -> str:
    return name.rpartition(":")[2]
