"""Conversations, messages and activity in MongoDB, through either driver."""

import uuid
from contextlib import suppress

from pymongo.errors import DuplicateKeyError

from database.mongodb import Document, MongoStore
from models.activity import Activity
from models.conversation import Conversation, Message, NewMessage
from repositories.message_log import MessageLog, as_message


class ConversationRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time. Ownership is in every query."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb
        self._log = MessageLog(mongodb)

    async def add(self, conversation: Conversation) -> None:
        """Insert it once, however often this is asked."""
        async with self._mongodb.operation() as database:
            with suppress(DuplicateKeyError):  # an earlier attempt got through
                await database.conversations.insert_one(_document(conversation))

    async def add_activity(self, activity: Activity) -> None:
        """Insert it once, however often this is asked."""
        async with self._mongodb.operation() as database:
            with suppress(DuplicateKeyError):
                await database.activity.insert_one(_document(activity))

    async def get(self, conversation_id: uuid.UUID, owner: uuid.UUID) -> Conversation | None:
        async with self._mongodb.operation() as database:
            found = await database.conversations.find_one({"_id": str(conversation_id), "user_id": str(owner)})
        return _conversation(found) if found else None

    async def page(self, owner: uuid.UUID, limit: int, before: uuid.UUID | None) -> list[Conversation]:
        """Up to `limit` conversations, newest first by creation, all older than the one named by `before`."""
        query: Document = {"user_id": str(owner)}
        if before:
            query["_id"] = {"$lt": str(before)}
        async with self._mongodb.operation() as database:
            found = await database.conversations.find(query).sort("_id", -1).limit(limit).to_list(limit)
        return [_conversation(document) for document in found]

    async def messages(
        self, conversation_id: uuid.UUID, limit: int, *, after: int | None = None, before: int | None = None
    ) -> list[Message]:
        """Up to `limit` messages in order: those following number `after`, else the last ones preceding `before`."""
        query: Document = {"conversation_id": str(conversation_id)}
        forward = after is not None
        if forward:
            query["seq"] = {"$gt": after}
        elif before is not None:
            query["seq"] = {"$lt": before}
        async with self._mongodb.operation() as database:
            found = await database.messages.find(query).sort("seq", 1 if forward else -1).limit(limit).to_list(limit)
        return [as_message(document) for document in (found if forward else reversed(found))]

    async def append(
        self, conversation_id: uuid.UUID, owner: uuid.UUID, new: NewMessage
    ) -> tuple[Message, bool] | None:
        """Give the message the next number. Returns it with whether it is new (not a repeat of its id), or None when
        the owner has no such conversation. Raises InvalidInput when the id was used for another message."""
        this = {"_id": str(conversation_id), "user_id": str(owner)}
        async with self._mongodb.operation() as database:
            if not await database.conversations.find_one(this, {"_id": 1}):
                return None
            return await self._log.append(str(conversation_id), new)

    async def close(self) -> None:
        """Wait for the messages that are under way."""
        await self._log.close()


def _document(model: Conversation | Activity) -> Document:
    values = model.model_dump()
    return {"_id": str(values.pop("id")), **values, "user_id": str(model.user_id)}


def _conversation(document: Document) -> Conversation:
    return Conversation(id=document["_id"], **{name: document[name] for name in document if name != "_id"})
