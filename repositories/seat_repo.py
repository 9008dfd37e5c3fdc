"""Seats taken of each course, in MongoDB. How many there are is PostgreSQL's, what is left is derived.

A course is one document, so each change of it is atomic: `taken`, and a marker for each change that may still be asked
for again, or arrive late. A marker's change is made at most once, and not when it reaches MongoDB after `until`, by its
own clock. What reached it before may wait there for a lock, and be made later: MongoDB looks at the clock first, and
ends it after the timeout that each operation carries. So after both its marker can be dropped, and the document keeps
no history.
"""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

from pymongo import ReturnDocument

from database.mongodb import Document, MongoStore

IN_FLIGHT = 1000
"""Markers of one course: more would make each change of it slow."""
Outcome = Literal["made", "full", "late", "not yet"]


class SeatRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb

    async def open(self, course_id: uuid.UUID) -> None:
        """Begin to count, once, however often and late this is asked."""
        none_taken = {"$setOnInsert": {"taken": 0, "markers": []}}
        async with self._mongodb.operation() as database:
            await database.seats.update_one({"_id": str(course_id)}, none_taken, upsert=True)

    async def taken(self, course_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
        """Of those that are open."""
        if not course_ids:
            return {}
        query = {"_id": {"$in": [str(id_) for id_ in course_ids]}}
        async with self._mongodb.operation() as database:
            found = await database.seats.find(query, {"taken": 1}).to_list(len(course_ids))
        return {uuid.UUID(document["_id"]): document["taken"] for document in found}

    async def change(
        self, course_id: uuid.UUID, marker: str, quantity: int, until: datetime, capacity: int | None = None
    ) -> Outcome:
        """Take seats, or with a negative quantity give them back, once for a marker. "made" also when it was made
        before; "full" above the capacity; "late" when it was not made and never will be; "not yet" when counting has
        not begun or too much is in flight."""
        is_new = {"$not": [{"$in": [marker, "$markers.id"]}]}
        taken: Document = {"$add": ["$taken", quantity]}
        conditions: list[Document] = [is_new, {"$lt": ["$$NOW", until]}, {"$lt": [{"$size": "$markers"}, IN_FLIGHT]}]
        if capacity is not None:
            conditions.append({"$lte": [taken, capacity]})
        added = {"$concatArrays": ["$markers", [{"id": marker, "quantity": quantity, "until": until}]]}
        made = {"taken": taken, "markers": added}
        change = {name: {"$cond": [{"$and": conditions}, value, f"${name}"]} for name, value in made.items()}
        wanted = {"taken": 1, "markers": {"$elemMatch": {"id": marker}}}
        async with self._mongodb.operation() as database:
            document: Document | None = await database.seats.find_one_and_update(
                {"_id": str(course_id)}, [{"$set": change}], wanted, return_document=ReturnDocument.AFTER
            )
            if document is None:
                return "not yet"
            if document.get("markers"):
                return "made"
            if capacity is not None and document["taken"] + quantity > capacity:
                return "full"
            return "late" if await database.seats.find_one(self._expired(course_id, until), {"_id": 1}) else "not yet"

    async def undo(self, course_id: uuid.UUID, marker: str, until: datetime) -> bool:
        """Take back what a marker changed, if it did, and drop it. False when it is too early: it may change still."""
        drop = {"$filter": {"input": "$markers", "cond": {"$ne": ["$$this.id", marker]}}}
        mine = {"$filter": {"input": "$markers", "cond": {"$eq": ["$$this.id", marker]}}}
        before = {"$subtract": ["$taken", {"$sum": {"$map": {"input": mine, "in": "$$this.quantity"}}}]}
        return await self._settle(course_id, until, [{"$set": {"taken": before, "markers": drop}}])

    async def forget(self, course_id: uuid.UUID, marker: str, until: datetime) -> bool:
        """Drop a marker whose change is known to be made. False when it is too early: it might be made again."""
        return await self._settle(course_id, until, {"$pull": {"markers": {"id": marker}}})

    async def _settle(self, course_id: uuid.UUID, until: datetime, change: Document | list[Document]) -> bool:
        async with self._mongodb.operation() as database:
            result = await database.seats.update_one(self._expired(course_id, until), change)
        return result.matched_count == 1

    def _expired(self, course_id: uuid.UUID, until: datetime) -> Document:
        ended = until + timedelta(seconds=self._mongodb.timeout)
        return {"_id": str(course_id), "$expr": {"$gte": ["$$NOW", ended]}}
