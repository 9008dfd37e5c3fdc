"""Logs in MongoDB whose entries are numbered 1, 2, 3, ... without gaps, in the order in which they become visible."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pymongo.errors import BulkWriteError

from tristore.models import now
from tristore.stores.mongodb import Document, MongoStore
from tristore.stores.mongodb_errors import refusal_in

BATCH = 100


class IdTaken(Exception):
    """The log has another entry under this id."""


@dataclass(frozen=True)
class Waiting:
    id: str
    values: Document
    answer: asyncio.Future[tuple[Document, bool]]


@dataclass(frozen=True)
class Names:
    """Of collections and fields. An entry also has `seq` and `timestamp`, a head `last_seq` and `updated_at`."""

    entries: str
    heads: str
    """The collection with one document for each log. Its `last_seq` is a number that no entry is above."""
    log: str
    """The field of an entry that names its log. A unique index is on it and `seq`."""


class NumberedLog:
    """The number is the last one + 1, and the unique index decides between processes. Within a process, what waits for
    one log is inserted as one batch. Writers that went one by one would collide on the index, throw most of their work
    away, and wait for the journal one after the other."""

    def __init__(self, mongodb: MongoStore, names: Names, grown: Callable[[str], None]) -> None:
        """`grown` is told the id of a log that has new entries."""
        self._mongodb = mongodb
        self._names = names
        self._grown = grown
        self._queues: dict[str, list[Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, log: str, id_: str, values: Document) -> tuple[Document, bool]:
        """The numbered entry, and whether it is new: the same id with the same values is a repeat. Raises IdTaken,
        StoreUnavailable."""
        waiting = Waiting(id_, values, asyncio.get_running_loop().create_future())
        if log in self._queues:
            self._queues[log].append(waiting)
        else:
            self._queues[log] = [waiting]
            task = asyncio.create_task(self._drain(log))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answer

    async def read(
        self, log: str, limit: int, *, after: int | None = None, before: int | None = None
    ) -> list[Document]:
        """Up to `limit` entries in order: those following number `after`, else the last ones preceding `before`. Raises
        StoreUnavailable."""
        query: Document = {self._names.log: log}
        forward = after is not None
        if forward:
            query["seq"] = {"$gt": after}
        elif before is not None:
            query["seq"] = {"$lt": before}
        async with self._mongodb.reading() as database:
            entries = database[self._names.entries]
            found = await entries.find(query).sort("seq", 1 if forward else -1).limit(limit).to_list(limit)
        return found if forward else found[::-1]

    async def last_numbers(self, logs: Collection[str], which: Document) -> dict[str, int]:
        """Of those whose heads match `which`: a number that no entry is above. It is written just before the entries.
        Raises StoreUnavailable."""
        query = {"_id": {"$in": list(logs)}, **which}
        async with self._mongodb.reading() as database:
            found = await database[self._names.heads].find(query, {"last_seq": 1}).to_list(len(logs))
        return {head["_id"]: head.get("last_seq", 0) for head in found}

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
        last = await entries.find_one({names.log: log}, {"seq": 1}, sort=[("seq", -1)])
        first = last["seq"] + 1 if last else 1
        documents = [self._document(log, first + i, waiting) for i, waiting in enumerate(batch)]
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
        if inserted:
            self._grown(log)
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

    def _document(self, log: str, seq: int, waiting: Waiting) -> Document:
        identity = {"_id": f"{log}/{waiting.id}", self._names.log: log, "seq": seq}
        return {**identity, "timestamp": now(), **waiting.values}


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
