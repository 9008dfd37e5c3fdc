"""Logs in MongoDB whose entries are numbered 1, 2, 3, ... without gaps, in the order in which they become visible."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import bson
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import BulkWriteError

from tristore.models import now
from tristore.stores.mongodb import Document, MongoStore
from tristore.stores.mongodb_errors import refusal_in

BATCH = 100
SMALL_BATCH = 4
"""Entries that come at once where their bytes are counted: all of these are in memory before the first is counted."""


class IdTaken(Exception):
    """The log has another entry under this id."""


@dataclass(frozen=True)
class Waiting:
    id: str
    values: Document
    name: str
    answer: asyncio.Future[tuple[Document, bool]]


@dataclass(frozen=True)
class Names:
    """Of collections and fields. An entry also has `seq` and `timestamp`, a head `last_seq` and `updated_at`."""

    entries: str
    heads: str
    """The collection with one document for each log. Its `last_seq` is a number that no entry is above."""
    log: str
    """The field of an entry that names its log. A unique index is on it and `seq`."""
    marked: str
    """The field of an entry with the number of the last one that is marked, up to this entry itself. Zero for none."""


class NumberedLog:
    """The number is the last one + 1, and the unique index decides between processes. Within a process, what waits for
    one log is inserted as one batch. Writers that went one by one would collide on the index, throw most of their work
    away, and wait for the journal one after the other."""

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
        self._is_marked = is_marked
        self._tell = tell
        self._queues: dict[str, list[Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, log: str, id_: str, values: Document, name: str) -> tuple[Document, bool]:
        """The numbered entry, and whether it is new: the same id with the same values is a repeat. `name` is told when
        it is there, once a batch. Raises IdTaken, StoreUnavailable."""
        waiting = Waiting(id_, values, name, asyncio.get_running_loop().create_future())
        if log in self._queues:
            self._queues[log].append(waiting)
        else:
            self._queues[log] = [waiting]
            task = asyncio.create_task(self._drain(log))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answer

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
        query: Document = {self._names.log: log}
        forward = after is not None
        if forward:
            query["seq"] = {"$gt": after}
        elif before is not None:
            query["seq"] = {"$lt": before}
        async with self._mongodb.reading() as database:
            cursor = database[self._names.entries].find(query).sort("seq", 1 if forward else -1).limit(limit)
            found = await (cursor.to_list(limit) if most_bytes is None else _taken(cursor, most_bytes))
        return found if forward else found[::-1]

    async def last_numbers(self, logs: Collection[str], which: Document) -> dict[str, int]:
        """Of those whose heads match `which`: a number that no entry is above. It is written just before the entries.
        Raises StoreUnavailable."""
        query = {"_id": {"$in": list(logs)}, **which}
        async with self._mongodb.reading() as database:
            found = await database[self._names.heads].find(query, {"last_seq": 1}).to_list(len(logs))
        return {head["_id"]: head.get("last_seq", 0) for head in found}

    async def last_entries(self, logs: Collection[str], fields: Mapping[str, object]) -> dict[str, Document]:
        """By log, of those that have entries: what the last one has. `fields` are names with MongoDB's expressions.
        Raises StoreUnavailable."""
        log = self._names.log
        # In this order, and with nothing but `$first`, MongoDB looks at one key of the index for each log.
        pipeline: list[Document] = [
            {"$match": {log: {"$in": list(logs)}}},
            {"$sort": {log: -1, "seq": -1}},
            {"$group": {"_id": f"${log}", **{name: {"$first": value} for name, value in fields.items()}}},
        ]
        found = await self._mongodb.aggregate(self._names.entries, pipeline)
        return {last.pop("_id"): last for last in found}

    async def close(self) -> None:
        """Wait for the batches that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self, log: str) -> None:
        queue = self._queues[log]
        try:
            while queue:
                batch = [waiting for waiting in queue[:BATCH] if not waiting.answer.done()]  # not those who gave up
                del queue[:BATCH]
                await self._answer(log, batch)
        finally:
            del self._queues[log]

    async def _answer(self, log: str, batch: Sequence[Waiting]) -> None:
        try:
            async with self._mongodb.operation():
                while batch:
                    batch = await self._insert(log, batch)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            for waiting in batch:
                _fail(waiting, error)

    async def _insert(self, log: str, batch: Sequence[Waiting]) -> Sequence[Waiting]:
        """Insert as many as possible, answer those, and return the others."""
        database, names = self._mongodb.database, self._names
        entries = database[names.entries]
        last = await entries.find_one({names.log: log}, {"seq": 1, names.marked: 1}, sort=[("seq", -1)])
        documents = list(self._documents(log, last or {}, batch))
        inserted = len(documents)
        # Before the entries, so that whoever polls `last_seq` can find one too early, never too late.
        touch = {"$max": {"updated_at": documents[-1]["timestamp"], "last_seq": documents[-1]["seq"]}}
        await database[names.heads].update_one({"_id": log}, touch)
        try:
            await entries.insert_many(documents)
        except BulkWriteError as error:
            if refusal := refusal_in(error):
                raise refusal from None
            inserted = error.details["nInserted"]  # in order, up to the first that failed
        for name in {waiting.name for waiting in batch[:inserted]}:
            self._tell(name)
        for waiting, document in zip(batch[:inserted], documents, strict=False):
            _succeed(waiting, document, is_new=True)
        if inserted == len(batch):
            return []
        async with self._mongodb.reading() as settled:
            stored = await settled[names.entries].find_one({"_id": documents[inserted]["_id"]})
        if stored:
            _repeat(batch[inserted], stored)
            inserted += 1
        # The number was taken by another process, or the repeated entry used none, or a failover may take it back.
        return batch[inserted:]

    def _documents(self, log: str, last: Document, batch: Sequence[Waiting]) -> Iterator[Document]:
        # Whoever has taken the next number by then takes this one too: so what is carried on is as exact as the number.
        marked = last.get(self._names.marked, 0)
        for seq, waiting in enumerate(batch, last.get("seq", 0) + 1):
            marked = seq if self._is_marked(waiting.values) else marked
            identity = {"_id": f"{log}/{waiting.id}", self._names.log: log, "seq": seq, self._names.marked: marked}
            yield {**identity, "timestamp": now(), **waiting.values}


async def _taken(cursor: AsyncCursor[Document], most_bytes: int) -> list[Document]:
    found, size = [], 0
    async for document in cursor.batch_size(SMALL_BATCH):
        found.append(document)
        size += len(bson.encode(document))
        if size >= most_bytes:
            await cursor.close()
            break
    return found


def _succeed(waiting: Waiting, document: Document, *, is_new: bool) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result((document, is_new))


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _repeat(waiting: Waiting, stored: Document) -> None:
    if all(stored.get(name) == value for name, value in waiting.values.items()):
        _succeed(waiting, stored, is_new=False)
    else:
        _fail(waiting, IdTaken())
