"""What a listener can follow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar


class Entry(Protocol):
    """One of a source's entries. Their numbers rise without gaps, and they become visible in this order."""

    @property
    def seq(self) -> int: ...


E = TypeVar("E", bound=Entry, covariant=True)


class Source(Protocol[E]):
    """Lists of entries that grow, each with a name. Its methods raise StoreUnavailable."""

    async def exists(self, name: str, caller: str) -> bool:
        """Whether there is a list of this name which this caller may read."""

    async def page(self, name: str, limit: int, after: int | None) -> Sequence[E]:
        """Up to `limit` entries in order: those that follow number `after`, else the last ones."""

    async def last_number(self, name: str) -> int:
        """A number that no entry is above which anybody was shown. It may be too high for a moment."""

    async def recent_numbers(self, names: Collection[str], seconds: float) -> Mapping[str, int | None]:
        """For each list that exists: the number of the last entry, or None where none has come within so many
        seconds."""
