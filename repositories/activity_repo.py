"""What users did, in MongoDB."""

import uuid

from database.mongodb import MongoStore
from models.activity import Activity
from tristore.models import Page, cursor_page


class ActivityRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb

    async def add(self, activity: Activity) -> None:
        """Insert it once, however often this is asked."""
        document = activity.model_dump() | {"_id": str(activity.id), "user_id": str(activity.user_id)}
        del document["id"]
        await self._mongodb.insert_once("activity", document)

    async def page(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Activity]:
        query = {"user_id": str(user_id)} | ({"_id": {"$lt": str(cursor)}} if cursor else {})
        async with self._mongodb.reading() as database:
            found = await database.activity.find(query).sort("_id", -1).limit(limit + 1).to_list(None)
        return cursor_page([Activity(id=document["_id"], **document) for document in found], limit)

    async def erase(self, user_id: uuid.UUID, *, for_good: bool) -> None:
        """Delete all of a user's, in the first pass and in the second (`for_good`)."""
        await self._mongodb.delete_all("activity", {"user_id": str(user_id)})
