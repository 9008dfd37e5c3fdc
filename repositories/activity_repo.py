"""What users did, in MongoDB."""

import uuid

from database.mongodb import Document, MongoStore
from models.activity import Activity
from tristore.models import Page


class ActivityRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb

    async def add(self, activity: Activity) -> None:
        """Insert it once, however often this is asked."""
        document = activity.model_dump(exclude={"id"}) | {"_id": str(activity.id), "user_id": str(activity.user_id)}
        if activity.other_user_id:
            document["other_user_id"] = str(activity.other_user_id)
        await self._mongodb.insert_once("activity", document)

    async def page(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Activity]:
        return await self._mongodb.page("activity", {"user_id": str(user_id)}, limit, cursor, _activity)

    async def erase(self, user_id: uuid.UUID, *, for_good: bool) -> None:
        """Delete all of a user's, in the first pass and in the second (`for_good`)."""
        await self._mongodb.delete_all("activity", {"user_id": str(user_id)})


def _activity(document: Document) -> Activity:
    return Activity(id=document["_id"], **document)
