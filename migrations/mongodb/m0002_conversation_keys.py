"""Conversations: the indexes on the keys that clients have started them with."""

from pymongo.asynchronous.database import AsyncDatabase

from database.mongodb import Document
from models.conversation import CONVERSATION_INDEXES


async def up(database: AsyncDatabase[Document]) -> None:
    await database.conversations.create_indexes(CONVERSATION_INDEXES)
