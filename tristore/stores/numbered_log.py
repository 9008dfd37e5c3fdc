"""Logs in MongoDB whose entries are numbered 1, 2, 3, ... without gaps, in the order in which they become visible."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

import bson
from pymongo.asynchronous.cursor import AsyncCursor

from tristore.models import now
from tristore.stores.log_writer import MARK_SECONDS, IdTaken, LogWriter, Names, last_entries
from tristore.stores.mongodb import Document, MongoStore

__all__ = ["IdTaken", "Names", "NumberedLog"]

SMALL_BATCH = 4
"""Entries that come at once where their bytes are counted: all of these are in memory before the first is counted."""


class NumberedLog:
    """Each log has a head, which names its owner, and entries in a collection of their own."""

    def __init__(
        self,
        mongodb: MongoStore,
        names: Names,
        is_marked: Callable[[Document], bool] = lambda values: False,
        tell: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`is_marked` decides about the values of an entry. `tell` is called with the name of what has new entries."""
        self._mongodb = mongodb
        self._names = names
        self._writer = LogWriter(mongodb, names, is_marked, tell)
        self.name = names.name

    async def append(self, log: str, owner: str, id_: str, values: Document) -> tuple[Document, bool] | None:
        """The numbered entry, and whether it is new: the same id with the same values is a repeat. None when the owner
        has no such log. The log's name is told when it is there, once a round. Raises IdTaken, StoreUnavailable."""
        async with self._mongodb.operation():
            return await self._writer.append(log, owner, id_, values)

    async def exists(self, log: str, owner: str) -> bool:
        """Whether the owner has such a log. Raises StoreUnavailable."""
        names = self._names
        async with self._mongodb.reading() as database:
            this = {"_id": log, names.owner: owner, **names.living}
            return await database[names.heads].find_one(this, {"_id": 1}) is not None

    def forget(self, owner: str, log: str) -> None:
        """Another process has new entries in it, or deletes it."""
        self._writer.forget(owner, log)

    def hear(self, names: Iterable[str]) -> None:
        """As `forget`, of those whose names these are."""
        for name in names:
            kind, _, owner_and_log = name.partition(":")
            if kind == self._names.kind:
                owner, _, log = owner_and_log.partition(":")
                self._writer.forget(owner, log)

    def forget_all(self) -> None:
        """As `forget`, when it cannot be told of which."""
        self._writer.forget_all()

    async def read(
        self,
        log: str,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
        most_bytes: int | None = None,
    ) -> list[Document]:
        """Up to `limit` entries in order: those following number `after`, else the last ones preceding `before`. No
        more follow once they have `most_bytes` together. Raises StoreUnavailable."""
        query, order = self._part(log, after, before)
        async with self._mongodb.reading() as database:
            cursor = database[self._names.entries].find(query).sort("seq", order).limit(limit)
            found = await (cursor.to_list(limit) if most_bytes is None else _taken(cursor, most_bytes))
        return found[::order]

    async def read_with_head(
        self, log: str, owner: str, limit: int, *, after: int | None = None, before: int | None = None
    ) -> tuple[Document, list[Document]] | None:
        """The head, and entries as `read` gives them, by one command. None when the owner has no such log. Raises
        StoreUnavailable."""
        names = self._names
        this = {"_id": log, names.owner: owner, **names.living}
        if limit == 0:
            async with self._mongodb.reading() as database:
                head = await database[names.heads].find_one(this)
            return (head, []) if head else None
        query, order = self._part(log, after, before)
        entries: list[Document] = [{"$match": query}, {"$sort": {"seq": order}}, {"$limit": limit}]
        joined = {"from": names.entries, "pipeline": entries, "as": "entries"}
        found = await self._mongodb.aggregate(names.heads, [{"$match": this}, {"$lookup": joined}])
        return (found[0], found[0].pop("entries")[::order]) if found else None

    async def last_number(self, log: str) -> int:
        """A number that no entry is above which anybody was shown. Raises StoreUnavailable."""
        # Not as the majority has it: right after a failover that may be less than what was shown before.
        async with self._mongodb.operation() as database:
            last = await last_entries(database, self._names, [log], {"seq": "$seq"})
        return last[log]["seq"] if log in last else 0

    async def recent_numbers(self, logs: Collection[str], seconds: float) -> dict[str, int | None]:
        """Of those that live: the number of the last entry, or None where none has come within so many seconds. Raises
        StoreUnavailable."""
        names, since = self._names, self._since(seconds)
        query = {"_id": {"$in": list(logs)}, **names.living}
        async with self._mongodb.reading() as database:
            heads = await database[names.heads].find(query, {"updated_at": 1}).to_list(None)
        recent = {head["_id"] for head in heads if head["updated_at"] > since}
        last = await self.numbers(recent) if recent else {}
        return {id_: last.get(id_, 0) if id_ in recent else None for id_ in (head["_id"] for head in heads)}

    async def newest(self, owner: str, limit: int) -> list[str]:
        """The owner's logs with the latest entries or changes, newest first. Raises StoreUnavailable."""
        names = self._names
        query = {names.owner: owner, **names.living}
        heads, _ = await self._mongodb.newest(names.heads, query, limit, None, "updated_at")
        return [head["_id"] for head in heads]

    async def moved(self, owners: Collection[str], seconds: float) -> list[tuple[str, str, int]]:
        """Owner, log, and the number of its last entry, of those with an entry or change within so many seconds. Raises
        StoreUnavailable."""
        names = self._names
        query = {names.owner: {"$in": list(owners)}, "updated_at": {"$gt": self._since(seconds)}, **names.living}
        async with self._mongodb.reading() as database:
            heads = await database[names.heads].find(query, {names.owner: 1}).to_list(None)
        last = await self.numbers([head["_id"] for head in heads]) if heads else {}
        return [(head[names.owner], head["_id"], last.get(head["_id"], 0)) for head in heads]

    async def numbers(self, logs: Collection[str]) -> dict[str, int]:
        """Of those that have entries: the number of the last one. Raises StoreUnavailable."""
        return {log: last["seq"] for log, last in (await self.last_entries(logs, {"seq": "$seq"})).items()}

    def _since(self, seconds: float) -> datetime:
        """The head of each log that got entries within so many seconds has been updated after this time."""
        return now() - timedelta(seconds=seconds + MARK_SECONDS + self._mongodb.timeout)

    async def last_entries(self, logs: Collection[str], fields: Mapping[str, object]) -> dict[str, Document]:
        """By log, of those that have entries: what the last one has. `fields` are names with MongoDB's expressions.
        Raises StoreUnavailable."""
        async with self._mongodb.reading() as database:
            return await last_entries(database, self._names, logs, fields)

    async def close(self) -> None:
        """Wait for the entries that are under way."""
        await self._writer.close()

    def _part(self, log: str, after: int | None, before: int | None) -> tuple[Document, int]:
        query: Document = {self._names.log: log}
        if after is not None:
            return query | {"seq": {"$gt": after}}, 1
        return query | ({"seq": {"$lt": before}} if before is not None else {}), -1


async def _taken(cursor: AsyncCursor[Document], most_bytes: int) -> list[Document]:
    found, size = [], 0
    async for document in cursor.batch_size(SMALL_BATCH):
        found.append(document)
        size += len(bson.encode(document))
        if size >= most_bytes:
            await cursor.close()
            break
    return found
