"""Appends to numbered logs: what waits in this process at the same moment goes to MongoDB as one command."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, WriteError

from tristore.models import now
from tristore.stores.mongodb import Document, MongoStore, aggregated
from tristore.stores.mongodb_errors import DUPLICATE, reason_of, refusal

MOST = 200
"""Entries that one command takes, of all logs or of one."""
KNOWN_SECONDS = 3.0
"""The owner of a log is believed for so long after it was read. With the time that an insert may take, this must be
less than the time until what belongs to a deleted log is deleted a second time."""
KNOWN = 10_000
"""Logs of which a process remembers something."""
MARK_SECONDS = 2.0
"""A log that gets entries is marked as changed at most so often."""


class IdTaken(Exception):
    """The log has another entry under this id."""


@dataclass(frozen=True)
class Names:
    """Of collections and fields. An entry also has `seq` and `timestamp`, a head `updated_at`."""

    kind: str
    """With which names begin, see `name`."""
    entries: str
    heads: str
    """The collection with one document for each log."""
    log: str
    """The field of an entry that names its log. A unique index is on it and `seq`. A shard key is this field
    alone: else two shards could take the same id."""
    owner: str
    """The field of a head that names its owner."""
    living: Document
    """What a head matches that can have new entries."""
    marked: str
    """The field of an entry with the number of the last one that is marked, up to this entry itself. Zero for none."""

    def name(self, *owner_and_log: object) -> str:
        """By which processes tell each other of a log, or of all logs of an owner."""
        return ":".join((self.kind, *map(str, owner_and_log)))


@dataclass(eq=False)
class Waiting:
    log: str
    owner: str
    id: str
    values: Document
    answer: asyncio.Future[tuple[Document, bool] | None] = field(default_factory=asyncio.Future)

    def succeed(self, result: tuple[Document, bool] | None) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class Head:
    """What this process knows of a log. Whoever forgets it leaves it to those who use it at that moment."""

    until: float
    owner: str | None = None
    """None: there is no such log."""
    last: Document | None = None
    """`seq` and the marked number of the last entry, empty for no entry. None: they must be read."""
    marked_at: float = -MARK_SECONDS


class LogWriter:
    """The number is the last one + 1, and the unique index decides between processes. One round is under way at a
    time, and whoever comes meanwhile waits for the next one: the more come, the more each command takes. Who comes
    alone waits for nobody.

    A round inserts one entry of each log with one unordered command. A log for which several wait has an ordered one of
    its own: so no entry shows before the one that it follows."""

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
        self._waiting: dict[str, deque[Waiting]] = {}
        self._heads: dict[str, Head] = {}
        self._latest: dict[str, str] = {}
        """Owner -> the log that was marked last. Owners see their logs in the order of their marks."""
        self._rounds: asyncio.Task[None] | None = None
        self._is_telling = False

    async def append(self, log: str, owner: str, id_: str, values: Document) -> tuple[Document, bool] | None:
        """See NumberedLog."""
        waiting = Waiting(log, owner, id_, values)
        self._waiting.setdefault(log, deque()).append(waiting)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run())
        return await waiting.answer

    def forget(self, owner: str, log: str) -> None:
        """Ask MongoDB again about this log: another process may have changed it. What this process tells itself, it
        knows."""
        if not self._is_telling:
            self._heads.pop(log, None)
            self._latest.pop(owner, None)

    def forget_all(self) -> None:
        self._heads.clear()
        self._latest.clear()

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._rounds and not self._rounds.done():
            await asyncio.wait([self._rounds])

    async def _run(self) -> None:
        while groups := self._next():
            try:
                async with self._mongodb.operation():
                    await self._round(groups)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                self._fail(groups, error)

    def _next(self) -> list[list[Waiting]]:
        """The next round: for each log some that wait, each id once, in order. Those who gave up are left out."""
        groups: list[list[Waiting]] = []
        left = MOST
        for log, queue in list(self._waiting.items()):
            group: dict[str, Waiting] = {}
            while queue and len(group) < left and queue[0].id not in group:
                waiting = queue.popleft()
                if not waiting.answer.done():
                    group[waiting.id] = waiting
            del self._waiting[log]
            if queue:
                self._waiting[log] = queue  # behind all others
            if group:
                groups.append(list(group.values()))
                left -= len(group)
            if left == 0:
                break
        return groups

    async def _round(self, groups: Sequence[Sequence[Waiting]]) -> None:
        heads = await self._heads_of([group[0].log for group in groups])
        owned = [kept for group in groups if (kept := _of_owner(group, heads[group[0].log]))]
        await self._mark([group[0] for group in owned], heads)
        single = [group[0] for group in owned if len(group) == 1]
        commands = [self._insert(single, heads, ordered=False)] if single else []
        commands += [self._insert(group, heads, ordered=True) for group in owned if len(group) > 1]
        await asyncio.gather(*commands)

    async def _heads_of(self, logs: Sequence[str]) -> dict[str, Head]:
        time_ = time.monotonic()
        heads = {log: head for log in logs if (head := self._heads.get(log)) and head.until > time_}
        unknown = [log for log in logs if log not in heads]
        unnumbered = [log for log in logs if log not in heads or heads[log].last is None]
        while len(self._heads) > KNOWN - len(unknown):
            self._heads.pop(next(iter(self._heads)))
        for log in unknown:
            # Before they are read: whoever forgets them meanwhile forgets what is read.
            heads[log] = self._heads[log] = Head(time_ + KNOWN_SECONDS)
        names = self._names
        if unknown:
            query = {"_id": {"$in": unknown}, **names.living}
            found = await self._mongodb.database[names.heads].find(query, {names.owner: 1}).to_list(None)
            for document in found:
                heads[document["_id"]].owner = document[names.owner]
            for log in unknown:
                if heads[log].owner is None:  # it may be there in a moment
                    self._heads.pop(log, None)
        if unnumbered:
            # Not as the majority has them: who counts on from an older number would collide until it has.
            fields = {"seq": "$seq", names.marked: f"${names.marked}"}
            last = await last_entries(self._mongodb.database, names, unnumbered, fields)
            for log in unnumbered:
                heads[log].last = last.get(log, {})
        return heads

    async def _mark(self, firsts: Iterable[Waiting], heads: dict[str, Head]) -> None:
        """Before the entries, and as durable as they are: whoever looks for logs with new entries goes by it."""
        time_ = time.monotonic()
        due = [
            first for first in firsts
            if time_ - heads[first.log].marked_at > MARK_SECONDS or self._latest.get(first.owner) != first.log
        ]  # fmt: skip
        if not due:
            return
        which = {"_id": {"$in": [first.log for first in due]}}
        await self._mongodb.database[self._names.heads].update_many(which, {"$max": {"updated_at": now()}})
        while len(self._latest) > KNOWN - len(due):
            self._latest.pop(next(iter(self._latest)))
        for first in due:
            heads[first.log].marked_at = time_
            self._latest[first.owner] = first.log

    async def _insert(self, group: Sequence[Waiting], heads: dict[str, Head], *, ordered: bool) -> None:
        """Answer those who can be answered. The others wait for the next round."""
        documents = self._documents(group, heads)
        for waiting in group:
            heads[waiting.log].last = None  # until it is acknowledged
        try:
            failed = await self._write(documents, ordered=ordered)
            stored = await self._stored(documents[i] for i, said in failed.items() if _may_be_repeat(said))
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            if reason_of(error) or len(group) == 1:
                return self._fail([group], error)
            for waiting in group:  # what can never be written fails alone
                await self._insert([waiting], await self._heads_of([waiting.log]), ordered=True)
            return None
        end = min(failed, default=len(group)) if ordered else len(group)
        written = {i: document for i, document in enumerate(documents[:end]) if i not in failed}
        for i, document in written.items():
            heads[group[i].log].last = None if ordered and failed else document
        for owner, log in {(group[i].owner, group[i].log) for i in written}:
            self._tell_of(self._names.name(owner, log))
        again = []
        for i, waiting in enumerate(group):
            if i in written:
                waiting.succeed((documents[i], True))
            elif there := stored.get(documents[i]["_id"]):
                _repeat(waiting, there)
            elif i in failed and failed[i].get("code") != DUPLICATE:
                waiting.fail(refusal(failed[i]))
            else:
                # Another process took the number, or a failover may take back what has the id, or one before it failed.
                again.append(waiting)
        for waiting in reversed(again):
            self._waiting.setdefault(waiting.log, deque()).appendleft(waiting)
        return None

    def _documents(self, group: Iterable[Waiting], heads: dict[str, Head]) -> list[Document]:
        # Whoever has taken the next number by then takes this one too: so what is carried on is as exact as the number.
        names, documents = self._names, []
        last = {waiting.log: heads[waiting.log].last or {} for waiting in group}
        for waiting in group:
            seq = last[waiting.log].get("seq", 0) + 1
            marked = seq if self._is_marked(waiting.values) else last[waiting.log].get(names.marked, 0)
            document = {"_id": f"{waiting.log}/{waiting.id}", names.log: waiting.log, "seq": seq, names.marked: marked}
            last[waiting.log] = document | {"timestamp": now(), **waiting.values}
            documents.append(last[waiting.log])
        return documents

    async def _write(self, documents: Sequence[Document], *, ordered: bool) -> dict[int, Document]:
        """What MongoDB says to those that it refused, by their places. Of ordered ones, none after the first of those
        was written."""
        entries = self._mongodb.database[self._names.entries]
        try:
            if len(documents) == 1:  # half of the driver's work
                await entries.insert_one(documents[0])
            else:
                await entries.insert_many(documents, ordered=ordered)
        except WriteError as error:
            return {0: {"code": error.code, **(error.details or {})}}
        except BulkWriteError as error:
            for said in error.details.get("writeConcernErrors", ()):
                raise refusal(said) from None
            return {said["index"]: said for said in error.details["writeErrors"]}
        return {}

    async def _stored(self, documents: Iterable[Document]) -> dict[str, Document]:
        """What has their ids. The logs are named too: in a sharded cluster they tell where to look."""
        if not (wanted := list(documents)):
            return {}
        query = {name: {"$in": [document[name] for document in wanted]} for name in (self._names.log, "_id")}
        async with self._mongodb.reading() as settled:
            found = await settled[self._names.entries].find(query).to_list(None)
        return {document["_id"]: document for document in found}

    def _tell_of(self, name: str) -> None:
        self._is_telling = True
        try:
            self._tell(name)
        finally:
            self._is_telling = False

    def _fail(self, groups: Iterable[Sequence[Waiting]], error: BaseException) -> None:
        for group in groups:
            for waiting in group:
                self.forget(waiting.owner, waiting.log)
                waiting.fail(error)


async def last_entries(
    database: AsyncDatabase[Document], names: Names, logs: Collection[str], fields: Mapping[str, object]
) -> dict[str, Document]:
    """See NumberedLog. The caller limits the time."""
    # In this order, and with nothing but `$first`, MongoDB looks at one key of the index for each log.
    pipeline: list[Document] = [
        {"$match": {names.log: {"$in": list(logs)}}},
        {"$sort": {names.log: -1, "seq": -1}},
        {"$group": {"_id": f"${names.log}", **{name: {"$first": value} for name, value in fields.items()}}},
    ]
    return {last.pop("_id"): last for last in await aggregated(database[names.entries], pipeline)}


def _of_owner(group: Sequence[Waiting], head: Head) -> list[Waiting]:
    """Answers all others: for them there is no such log."""
    for waiting in group:
        if waiting.owner != head.owner:
            waiting.succeed(None)
    return [waiting for waiting in group if waiting.owner == head.owner]


def _may_be_repeat(said: Document) -> bool:
    return said.get("code") == DUPLICATE and "_id" in said.get("keyPattern", ("_id",))


def _repeat(waiting: Waiting, stored: Document) -> None:
    if all(stored.get(name) == value for name, value in waiting.values.items()):
        waiting.succeed((stored, False))
    else:
        waiting.fail(IdTaken())
