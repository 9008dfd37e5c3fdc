"""The index for conversations by the last message, and how far each has been read: what was there so far is read."""

from pymongo.asynchronous.database import AsyncDatabase

from database.mongodb import Document
from models.conversation import CONVERSATION_INDEXES


async def up(database: AsyncDatabase[Document]) -> None:
    await database.conversations.create_indexes(CONVERSATION_INDEXES)
    read = [{"$set": {"read_seq": {"$ifNull": ["$last_seq", 0]}}}]
    await database.conversations.update_many({"read_seq": {"$exists": False}}, read)
