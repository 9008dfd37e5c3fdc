"""Conversations, messages and activity with their indexes."""

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.activity import ACTIVITY_INDEXES
from models.conversation import CONVERSATION_INDEXES, MESSAGE_INDEXES


async def up(database: AsyncDatabase[dict[str, Any]]) -> None:
    await database.conversations.create_indexes(CONVERSATION_INDEXES)
    await database.messages.create_indexes(MESSAGE_INDEXES)
    await database.activity.create_indexes(ACTIVITY_INDEXES)
