"""Writes to a store as the app does, and past the app: so the lab knows when the store could not acknowledge it."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient, WriteConcern

from tests.chaos.replica_set import ReplicaSet
from tristore.testing.replication import Replication

EVERY_SECONDS = 0.2
WRITE_SECONDS = 0.8
"""As long as the app waits for a store."""


class Witness:
    def __init__(self) -> None:
        self._failed: list[float] = []
        """When its attempts ended that were not acknowledged, or too late."""

    def last_failure(self, before: float) -> float:
        """By the monotonic clock, or 0."""
        place = bisect_right(self._failed, before)
        return self._failed[place - 1] if place else 0.0

    async def look(self, write: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await write()
            except Exception:  # noqa: BLE001 - for whatever reason: it was not acknowledged
                self._failed.append(time.monotonic())
            await asyncio.sleep(EVERY_SECONDS)


@asynccontextmanager
async def witnessed(write: Callable[[], Awaitable[object]]) -> AsyncIterator[Witness]:
    witness = Witness()
    looking = asyncio.create_task(witness.look(write))
    try:
        yield witness
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def to_postgresql(replication: Replication) -> Callable[[], Awaitable[object]]:
    """Its commit waits for whom the app's commits wait."""
    return lambda: replication.primary.says("SELECT pg_logical_emit_message(true, 'witness', '')")


@asynccontextmanager
async def to_mongodb(replica_set: ReplicaSet) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """With the app's concern, in a database of its own, by a driver that follows the primary as the app's does."""
    milliseconds = round(WRITE_SECONDS * 1000)
    async with AsyncMongoClient[dict[str, Any]](replica_set.dsn, serverSelectionTimeoutMS=milliseconds) as client:
        collection = client.witness.get_collection("writes", write_concern=WriteConcern("majority", j=True))
        yield lambda: collection.update_one({"_id": 1}, {"$inc": {"n": 1}}, upsert=True)
