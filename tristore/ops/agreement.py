"""Whether the stores agree. What one store has and another must have is looked for there, in batches by key. Nothing is
locked, and everything goes on meanwhile. So what seems wrong is looked at again, when what was under way has ended."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import InstrumentedAttribute

from tristore.errors import StoreUnavailable
from tristore.outbox.repository import OutboxRepository
from tristore.personal import Documents, Entity
from tristore.stores.keys import Keys, Lookup, MongoKeys, PostgresKeys
from tristore.stores.postgres import start_budget
from tristore.stores.stores import Stores

T = TypeVar("T")

AT_ONCE = 500
"""Keys that one call asks for."""
MOST = 1000
"""Findings of a kind. Who has more does not need each of them to know what has happened."""
CALL_SECONDS = 5.0
"""How long the statements of one call may wait for PostgreSQL. MongoDB's timeout is the service's own."""
TRIES, PAUSE_SECONDS = 3, 1.0


@dataclass(frozen=True)
class Seen:
    """What one look has found."""

    wrong: Mapping[str, str]
    """By key, in words. "" where the kind says all."""
    unsettled: Collection[str] = ()
    """Keys that nothing can be said of, because something is under way for them."""


@dataclass(frozen=True)
class Check:
    kind: str
    """What is wrong, in the plural."""
    cure: str
    following: Callable[[str, int], Awaitable[Sequence[str]]]
    """See Keys."""
    look: Callable[[Collection[str]], Awaitable[Seen]]
    aggregate: Callable[[str], str] | None = None
    """What the outbox calls a key. As long as anything is owed to it, nothing about it is wrong."""
    at_once: int = AT_ONCE


@dataclass
class Result:
    check: Check
    looked_at: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    under_way: int = 0
    is_whole: bool = False
    """False when there was more to look at: then there were `MOST` findings already."""


def missing(kind: str, cure: str, every: Keys, has: Lookup, aggregate: Callable[[str], str] | None = None) -> Check:
    """Keys of one store that another must have, and has not."""

    async def look(keys: Collection[str]) -> Seen:
        absent = set(keys) - await has.among(keys)
        still = await every.among(absent) if absent else ()  # both may have gone since the key was read
        return Seen(dict.fromkeys(sorted(still), ""))

    return Check(kind, cure, every.following, look, aggregate)


def ownerless(
    entities: Sequence[Entity[Any, Any]],
    stores: Stores,
    owner: InstrumentedAttribute[uuid.UUID],
    living: Lookup,
    cure: str,
    aggregate: Callable[[str], str],
    *,
    without: Collection[str],
) -> Iterator[Check]:
    """For each table and collection of what belongs to somebody, but for those `without` a field `user_id`: what is
    left there of owners who are not living. `owner`: the column that the tables refer to."""
    column = owner.property.columns[0]
    for entity in entities:
        for name in entity.stored_in:
            keys: Keys | None = None
            if isinstance(entity, Documents):
                keys = MongoKeys(stores.mongodb, name, "user_id") if name not in without else None
            elif name != column.table.name and name not in getattr(entity, "keeps", ()):
                table = column.table.metadata.tables[name]
                refers = next(each for each in table.columns if each.references(column))
                keys = PostgresKeys(stores.postgres, refers)
            if keys:
                yield missing(f"{name} of owners who are gone", cure, keys, living, aggregate)


def miscounted(outbox: OutboxRepository) -> Check:
    """Streams of the outbox, as `AGGREGATE QUEUE`."""

    async def look(keys: Collection[str]) -> Seen:
        found = await outbox.miscounted([_stream(key) for key in keys])
        return Seen({f"{row.aggregate} {row.store}": f"counts {row.pending}, has {row.effects}" for row in found})

    async def following(after: str, limit: int) -> Sequence[str]:
        rows = await outbox.streams_following(*_stream(after), limit)
        return [f"{row.aggregate} {row.store}" for row in rows]

    kind = "streams of the outbox that count wrongly"
    return Check(kind, "`manage.py outbox recount AGGREGATE QUEUE` lets each count what is there.", following, look)


def _stream(key: str) -> tuple[str, str]:
    aggregate, _, queue = key.rpartition(" ")
    return aggregate, queue


class Comparison:
    """Runs checks, one after the other. Raises StoreUnavailable when a store does not answer several times."""

    def __init__(self, outbox: OutboxRepository, settle_seconds: float, tell: Callable[[str], object]) -> None:
        """`settle_seconds`: until a finding is looked at again. `tell` gets lines that say how far it is."""
        self._outbox = outbox
        self._settle_seconds = settle_seconds
        self._tell = tell

    async def run(self, check: Check) -> Result:
        result, suspects = Result(check), list[str]()
        async for keys in self._batches(check):
            seen = await _patiently(partial(check.look, keys))
            suspects += [*seen.wrong, *seen.unsettled]
            result.looked_at += len(keys)
            self._tell(f"{check.kind}: {result.looked_at} looked at, {len(suspects)} to look at again")
            if len(suspects) >= MOST:
                await self._look_again(result, suspects)
                suspects = []
            if len(result.wrong) >= MOST:
                return result
        await self._look_again(result, suspects)
        result.is_whole = True
        return result

    async def _batches(self, check: Check) -> AsyncIterator[list[str]]:
        after = ""
        while keys := await _patiently(partial(check.following, after, check.at_once)):
            yield list(dict.fromkeys(keys))
            after = keys[-1]

    async def _look_again(self, result: Result, suspects: Sequence[str]) -> None:
        if not suspects:
            return
        await asyncio.sleep(self._settle_seconds)
        for start in range(0, len(suspects), result.check.at_once):
            keys = suspects[start : start + result.check.at_once]
            owed = await self._owed(result.check, keys)  # first: what is delivered after this is seen by the look
            seen = await _patiently(partial(result.check.look, [key for key in keys if key not in owed]))
            result.wrong |= seen.wrong
            result.under_way += len(owed) + len(seen.unsettled)

    async def _owed(self, check: Check, keys: Sequence[str]) -> set[str]:
        if check.aggregate is None:
            return set()
        aggregates = {key: check.aggregate(key) for key in keys}
        waiting = await _patiently(partial(self._outbox.waiting, list(aggregates.values())))
        return {key for key, aggregate in aggregates.items() if aggregate in waiting}


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """A store that is busy for a moment ends no check that runs for an hour."""
    for _ in range(TRIES - 1):
        start_budget(CALL_SECONDS)
        with suppress(StoreUnavailable):
            return await call()
        await asyncio.sleep(PAUSE_SECONDS)
    start_budget(CALL_SECONDS)
    return await call()
