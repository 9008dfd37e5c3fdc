"""What a user did: an append-only log in MongoDB, kept for a set time."""

import uuid
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel
from pymongo import ASCENDING, DESCENDING, IndexModel

ACTIVITY_KEPT = timedelta(days=90)
ACTIVITY_INDEXES = [
    IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)], name="user_newest_first"),
    IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=int(ACTIVITY_KEPT.total_seconds())),
]

Action = Literal["registered", "profile_changed"]


class Activity(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    action: Action
    at: datetime
