"""MongoDB: documents and history. Client, migration gate, health probe, and what its driver's errors mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bson.errors import BSONError
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, errors
from pymongo.asynchronous.database import AsyncDatabase

from config import Settings
from database.translation import translating
from services.errors import Reason, StoreUnavailable

LEDGER = "schema_migrations"
SCRIPTS = Path(__file__).parent.parent / "migrations" / "mongodb"

# Looked up along the error's MRO. None: the operation's own fault, not translated.
REASONS: dict[type[BaseException], Reason | None] = {
    errors.ConnectionFailure: "unreachable",
    errors.NetworkTimeout: "timeout",
    errors.WaitQueueTimeoutError: "busy",
    errors.ExecutionTimeout: "timeout",
    errors.WTimeoutError: "timeout",  # written, but not known to be replicated: ask again
    errors.PyMongoError: None,
    BSONError: None,
    TimeoutError: "timeout",
    OSError: "unreachable",
}

DELETED_AT_ONCE = 500

# An index over many documents takes its time, but a server that takes writes is found soon or not at all. `timeoutMS`
# is for both together.
MIGRATING = {
    "timeoutMS": None,
    "socketTimeoutMS": 600_000,
    "serverSelectionTimeoutMS": 6_000,
    "connectTimeoutMS": 6_000,
}

REFUSED = {13, 18}  # Unauthorized, AuthenticationFailed: the DSN is wrong

Document = dict[str, Any]


@dataclass
class MongoStore:
    """Both drivers' databases offer the calls that our repositories use, so one type stands for both."""

    database: AsyncDatabase[Document]
    probe: AsyncMongoClient[Document]
    timeout: float
    """Seconds that one operation may take, the wait for one of Motor's threads included."""
    pool_size: int
    under_way: int = 0
    """Operations, as near to connections in use as both drivers let one see."""
    _migrated: bool = False

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[AsyncDatabase[Document]]:
        """The database for one operation, bounded in time. Raises StoreUnavailable, also before migration:
        without its unique indexes MongoDB would accept what must be refused."""
        self.under_way += 1
        try:
            with translate_errors():
                async with asyncio.timeout(self.timeout):
                    if not self._migrated:
                        await self._require_migrated()
                    yield self.database
        finally:
            self.under_way -= 1

    async def delete_all(self, collection: str, query: Document) -> None:
        """Delete however many there are, some at a time, each time within the bound. Raises StoreUnavailable."""
        while True:
            async with self.operation() as database:
                found = await database[collection].find(query, {"_id": 1}).limit(DELETED_AT_ONCE).to_list(None)
                if not found:
                    return
                await database[collection].delete_many({"_id": {"$in": [document["_id"] for document in found]}})

    async def _require_migrated(self) -> None:
        if not await self.database[LEDGER].find_one({"_id": script_names()[-1]}):
            raise StoreUnavailable("mongodb", "not migrated")
        self._migrated = True


def script_names() -> list[str]:
    """Names of the migration scripts in their order, such as `m0001_initial`."""
    return sorted(path.stem for path in SCRIPTS.glob("m*.py"))


@asynccontextmanager
async def open_mongodb(settings: Settings, **more: Any) -> AsyncIterator[MongoStore]:
    """Open the client of the driver that `mongodb_driver` names, with `more` of its options; connects on first use.
    Closes it at the end."""
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
        **more,
    }
    dsn = settings.dsn("mongodb_dsn")
    probe: AsyncMongoClient[Document] = AsyncMongoClient(dsn, **options | {"maxPoolSize": 1})
    client: Any
    if settings.mongodb_driver == "motor":
        client = AsyncIOMotorClient(dsn, io_loop=asyncio.get_running_loop(), **options)
    else:
        client = AsyncMongoClient(dsn, **options)
    try:
        database = cast(AsyncDatabase[Document], client[settings.mongodb_database])
        yield MongoStore(database, probe, settings.mongodb_timeout, settings.mongodb_max_pool_size)
    finally:
        closed = client.close()  # Motor's returns None, PyMongo's must be awaited
        if closed is not None:
            await closed
        await probe.close()


async def ping(mongodb: MongoStore) -> None:
    """One round trip on the probe's own connection. Raises StoreUnavailable, also for a server that is no primary."""
    with translate_errors():
        hello = await mongodb.probe.admin.command("hello")
    if not hello.get("isWritablePrimary"):
        raise StoreUnavailable("mongodb", "unreachable")


def pool_use(mongodb: MongoStore) -> tuple[int, int]:
    """Operations under way, and connections that the pool holds at most."""
    return mongodb.under_way, mongodb.pool_size


def translate_errors() -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("mongodb", reason_of)


def reason_of(error: BaseException) -> Reason | None:
    """Why MongoDB was not available, or None when the error is not about that."""
    if isinstance(error, errors.OperationFailure) and error.code in REFUSED:
        return "unreachable"
    return next((REASONS[cls] for cls in type(error).__mro__ if cls in REASONS), None)
