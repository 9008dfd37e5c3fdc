"""Conversations, messages and activity with their indexes."""

from pymongo.asynchronous.database import AsyncDatabase

from database.mongodb import Document
from models.activity import ACTIVITY_INDEXES
from models.conversation import CONVERSATION_INDEXES, MESSAGE_INDEXES


async def up(database: AsyncDatabase[Document]) -> None:
    await database.conversations.create_indexes(CONVERSATION_INDEXES)
    await database.messages.create_indexes(MESSAGE_INDEXES)
    await database.activity.create_indexes(ACTIVITY_INDEXES)
