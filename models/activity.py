"""What a user did: an append-only log in MongoDB, kept for a set time."""

import uuid
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel
from pymongo import ASCENDING, DESCENDING, IndexModel

from tristore.models import Page, new_id, now

ACTIVITY_KEPT = timedelta(days=90)
ACTIVITY_INDEXES = [
    IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)], name="user_newest_first"),
    IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=int(ACTIVITY_KEPT.total_seconds())),
]

Action = Literal[
    "registered",
    "signed_in",
    "profile_changed",
    "password_changed",
    "conversation_started",
    "conversation_renamed",
    "conversation_deleted",
    "order_placed",
    "order_cancelled",
]


class Activity(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action: Action
    at: datetime


class ActivityPage(Page[Activity]):
    pass


def happened(user_id: uuid.UUID, action: Action) -> Activity:
    """Something that a user does right now."""
    return Activity(id=new_id(), user_id=user_id, action=action, at=now())
