"""MongoDB: documents and history. Its clients, the check that it is migrated, and its health probe."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Any, cast

from anyio import to_thread
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, errors
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from tristore import spans
from tristore.errors import InvalidInput, StoreUnavailable
from tristore.models import Identified, Page, cursor_page, now
from tristore.settings import TristoreSettings
from tristore.stores import mongodb_waits
from tristore.stores.mongodb_errors import translate_errors as translate_errors
from tristore.stores.watched import Commands

DELETED_AT_ONCE = 500
EPOCH, MILLISECOND = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)

# An index over many documents takes its time, but a server that takes writes is found soon or not at all. `timeoutMS`
# is for both together.
MIGRATING: dict[str, int | None] = {
    "timeoutMS": None,
    "socketTimeoutMS": 600_000,
    "serverSelectionTimeoutMS": 6_000,
    "connectTimeoutMS": 6_000,
}

Document = dict[str, Any]

mongodb_waits.mend()


@dataclass
class MongoStore:
    """Both drivers' databases offer the calls that our repositories use, so one type stands for both."""

    database: AsyncDatabase[Document]
    probe: AsyncMongoClient[Document]
    timeout: float
    """Seconds that one operation may take, the wait for one of Motor's threads included."""
    pool_size: int
    majority: AsyncDatabase[Document] | None = None
    """The database, read as the majority of the members has it. None: as `database`; the fake knows no read concern."""
    under_way: int = 0
    """Operations, as near to connections in use as both drivers let one see."""
    is_refusing: bool = False
    """Whether the last refusal was for want of space: then only a write that happens tells that it is over."""
    raise_unknown: bool = False
    """Let a refusal that no table has pass. In tests: it may be our own bug."""
    required_scripts: Mapping[str, str] = field(default_factory=dict)
    """Ledger -> the migration script that it must record before this serves."""
    looks_up: bool = False
    """Whether DNS has yet to tell the members."""
    _migrated: bool = False
    _looking_up: "asyncio.Future[Any] | None" = None

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[AsyncDatabase[Document]]:
        """The database for one operation, bounded in time. Raises StoreUnavailable, also before migration:
        without its unique indexes MongoDB would accept what must be refused."""
        self.under_way += 1
        try:
            with translate_errors(raise_unknown=self.raise_unknown):
                async with asyncio.timeout(self.timeout):
                    if self.looks_up:
                        await self._look_up()
                    if not self._migrated:
                        await self.require_migrated()
                    yield self.database
        except StoreUnavailable as error:
            self.is_refusing |= error.store == "mongodb" and error.reason == "refuses writes"
            raise
        finally:
            self.under_way -= 1

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncDatabase[Document]]:
        """As `operation`, for what somebody is shown: a failover never takes it back."""
        async with self.operation() as database:
            yield database if self.majority is None else self.majority

    async def insert_once(self, collection: str, document: Document) -> None:
        """Insert it, however often this is asked. An earlier attempt that got through counts once the majority has it:
        until then a failover may take it back. Raises StoreUnavailable."""
        async with self.operation() as database:
            with suppress(errors.DuplicateKeyError):
                await database[collection].insert_one(document)
                return
        async with self.reading() as database:
            if await database[collection].find_one({"_id": document["_id"]}, {"_id": 1}) is None:
                raise StoreUnavailable("mongodb", "timeout", "NotYetReplicated")

    async def page(
        self,
        collection: str,
        query: Document,
        limit: int,
        cursor: uuid.UUID | None,
        read: Callable[[Document], Identified],
    ) -> "Page[Identified]":
        """What `read` makes of the documents, newest first: their ids are UUIDv7. Raises StoreUnavailable."""
        older = {"_id": {"$lt": str(cursor)}} if cursor else {}
        async with self.reading() as database:
            found = await database[collection].find(query | older).sort("_id", -1).limit(limit + 1).to_list(None)
        return cursor_page([read(document) for document in found], limit)

    async def newest(
        self, collection: str, query: Document, limit: int, cursor: str | None, moves: str = ""
    ) -> tuple[list[Document], str | None]:
        """Up to `limit` documents, newest first, and the cursor of those that follow, None when none do. By their ids,
        which are UUIDv7, or by the time in the field `moves`, which may only grow: what moves meanwhile is above the
        cursor then, so none comes twice. Raises InvalidInput for the cursor of another order, StoreUnavailable."""
        wanted, order = query | _below(cursor, moves), {moves: -1, "_id": -1} if moves else {"_id": -1}
        async with self.reading() as database:
            found = await database[collection].find(wanted).sort(order).limit(limit + 1).to_list(None)
        page = found[:limit]
        return page, _cursor(page[-1], moves) if len(found) > limit else None

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        """All that it gives, as the majority has it. Raises StoreUnavailable."""
        async with self.reading() as database:
            return await aggregated(database[collection], pipeline)

    async def delete_all(self, collection: str, query: Document) -> None:
        """Delete however many there are, some at a time, each time within the bound. Raises StoreUnavailable."""
        while True:
            async with self.operation() as database:
                found = await database[collection].find(query, {"_id": 1}).limit(DELETED_AT_ONCE).to_list(None)
                if not found:
                    return
                these = {"_id": {"$in": [document["_id"] for document in found]}}
                await database[collection].delete_many({"$and": [query, these]})  # what it names may be a shard key

    async def _look_up(self) -> None:
        """Once for all. PyMongo does it for each caller that comes before the first answer, and what it opens for all
        but one runs on for good."""
        if self._looking_up is None:
            self._looking_up = asyncio.ensure_future(self.database.command("ping"))
            self._looking_up.add_done_callback(self._looked_up)
        await asyncio.shield(self._looking_up)

    def _looked_up(self, done: "asyncio.Future[Any]") -> None:
        self._looking_up = None
        self.looks_up = done.cancelled() or done.exception() is not None

    async def require_migrated(self) -> None:
        """Once it is true, it stays true. Raises StoreUnavailable."""
        if self._migrated:
            return
        for ledger, script in self.required_scripts.items():
            if not await self.database[ledger].find_one({"_id": script}):
                raise StoreUnavailable("mongodb", "not migrated")
        self._migrated = True


async def aggregated(collection: AsyncCollection[Document], pipeline: Sequence[Document]) -> list[Document]:
    """All that it gives. The caller limits the time."""
    cursor: Any = collection.aggregate(pipeline)
    return cast(list[Document], await (await cursor if isawaitable(cursor) else cursor).to_list(None))


def _cursor(last: Document, moves: str) -> str:
    moved = f"{(last[moves] - EPOCH) // MILLISECOND}." if moves else ""
    return f"{moved}{last['_id']}"


def _below(cursor: str | None, moves: str) -> Document:
    if not cursor:
        return {}
    moved, _, id_ = cursor.rpartition(".")
    if bool(moved) != bool(moves):
        raise InvalidInput("cursor", "comes from a list in another order")
    older = {"_id": {"$lt": id_}}
    if not moved:
        return older
    time = EPOCH + int(moved) * MILLISECOND
    return {moves: {"$lte": time}, "$or": [{moves: {"$lt": time}}, older]}  # the first is a bound of the index


@asynccontextmanager
async def open_mongodb(
    settings: TristoreSettings, required_scripts: Mapping[str, str] | None = None, /, **more: object
) -> AsyncIterator[MongoStore]:
    """Open the client of the driver that `mongodb_driver` names, with `more` of its options. It connects on first use,
    and is closed at the end. `required_scripts`: as in MongoStore."""
    milliseconds = round(settings.mongodb_timeout * 1000)
    options: dict[str, Any] = {
        "appname": settings.app_name,
        "maxPoolSize": settings.mongodb_max_pool_size,
        "timeoutMS": milliseconds,
        "serverSelectionTimeoutMS": milliseconds,
        "connectTimeoutMS": milliseconds,
        "tz_aware": True,
        # With less, a killed mongod loses acknowledged writes.
        "w": "majority",
        "journal": True,
        **({"event_listeners": [Commands()]} if spans.are_on() else {}),
        **more,
    }
    dsn = settings.dsn("mongodb_dsn")
    probe: AsyncMongoClient[Document] = AsyncMongoClient(dsn, **options | {"maxPoolSize": 1})
    client: AsyncIOMotorClient[Document] | AsyncMongoClient[Document]
    if settings.mongodb_driver == "motor":
        client = AsyncIOMotorClient(dsn, io_loop=asyncio.get_running_loop(), **options)
    else:
        client = AsyncMongoClient(dsn, **options)
    try:
        database = cast(AsyncDatabase[Document], client[settings.mongodb_database])
        majority = database.with_options(read_concern=ReadConcern("majority"))
        strict = settings.environment == "test"
        yield MongoStore(
            database,
            probe,
            settings.mongodb_timeout,
            settings.mongodb_max_pool_size,
            majority,
            raise_unknown=strict,
            required_scripts=required_scripts or {},
            looks_up=dsn.startswith("mongodb+srv:"),
        )
    finally:
        await asyncio.gather(*(_close(one, settings.mongodb_timeout) for one in (client, probe)))


async def _close(client: AsyncIOMotorClient[Document] | AsyncMongoClient[Document], seconds: float) -> None:
    """A client tells the server which sessions it ends. A server that hangs is given these seconds to hear it."""

    async def close() -> None:
        if isinstance(client, AsyncIOMotorClient):  # its `close` is PyMongo's own, which would hold up the event loop
            await to_thread.run_sync(client.close, abandon_on_cancel=True)
        else:
            await client.close()

    try:
        async with asyncio.timeout(seconds):
            await close()
    except TimeoutError:
        await close()  # it has no sessions any more, and so it says nothing


async def ping(mongodb: MongoStore) -> None:
    """Whether it acknowledges a write as the app asks for it. The write matches nothing: it hangs where writes hang,
    and writes nothing. After a refusal for want of space it is a real one. Raises StoreUnavailable."""
    probes = mongodb.probe[mongodb.database.name].probes
    with translate_errors():
        await mongodb.require_migrated()
        await probes.update_one({"_id": "probe"}, {"$set": {"at": now()}}, upsert=mongodb.is_refusing)
    mongodb.is_refusing = False


def pool_use(mongodb: MongoStore) -> tuple[int, int]:
    """Operations under way, and connections that the pool holds at most."""
    return mongodb.under_way, mongodb.pool_size
