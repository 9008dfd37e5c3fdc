"""What a user did: an append-only log in MongoDB, kept for a set time."""

import uuid
from datetime import timedelta

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from tristore.models import Moment, Page, new_id, now

ACTIVITY_KEPT = timedelta(days=90)
ACTIVITY_INDEXES = [
    IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)], name="user_newest_first"),
    IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=int(ACTIVITY_KEPT.total_seconds())),
]


class Activity(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action: str = Field(description="such as signed_in; later releases may add others")
    at: Moment
    other_user_id: uuid.UUID | None = Field(None, description="who did it, or to whom, where another user is concerned")


class ActivityPage(Page[Activity]):
    pass


def happened(user_id: uuid.UUID, action: str, other: uuid.UUID | None = None) -> Activity:
    """Something that a user does right now, or that another one does to the user."""
    return Activity(id=new_id(), user_id=user_id, action=action, at=now(), other_user_id=other)
