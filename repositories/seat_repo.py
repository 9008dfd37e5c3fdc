"""Seats taken of each course, in MongoDB. How many there are is PostgreSQL's, what is left is derived."""

import uuid
from collections.abc import Collection
from contextlib import suppress

from pymongo.errors import DuplicateKeyError

from database.mongodb import MongoStore


class SeatRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb

    async def open(self, course_id: uuid.UUID) -> None:
        """Begin to count, once, however often and late this is asked."""
        none_taken = {"$setOnInsert": {"taken": 0, "markers": []}}
        async with self._mongodb.operation() as database:
            with suppress(DuplicateKeyError):  # another attempt was quicker
                await database.seats.update_one({"_id": str(course_id)}, none_taken, upsert=True)

    async def taken(self, course_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
        """Of those that are open."""
        if not course_ids:
            return {}
        query = {"_id": {"$in": [str(id_) for id_ in course_ids]}}
        async with self._mongodb.operation() as database:
            found = await database.seats.find(query, {"taken": 1}).to_list(len(course_ids))
        return {uuid.UUID(document["_id"]): document["taken"] for document in found}
