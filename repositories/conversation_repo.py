"""Conversations, messages and activity in MongoDB, through either driver."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from database.mongodb import Document, MongoStore
from models.activity import Activity
from models.base import now
from models.conversation import Conversation, Message, NewMessage
from services.errors import InvalidInput


class ConversationRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time. Ownership is in every query."""

    def __init__(self, mongodb: MongoStore) -> None:
        self._mongodb = mongodb
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        return [_message(document) for document in (found if forward else reversed(found))]

    async def append(
        self, conversation_id: uuid.UUID, owner: uuid.UUID, new: NewMessage
    ) -> tuple[Message, bool] | None:
        """Give the message the next number. Returns it with whether it is new (not a repeat of its id), or None when
        the owner has no such conversation. Raises InvalidInput when the id was used for another message."""
        key = str(conversation_id)
        async with self._mongodb.operation() as database:
            touched = await database.conversations.update_one(
                {"_id": key, "user_id": str(owner)}, {"$max": {"updated_at": now()}}
            )
            if not touched.matched_count:
                return None
            async with self._writer(key):
                return await self._insert_next(database, key, new)

    @asynccontextmanager
    async def _writer(self, conversation_id: str) -> AsyncIterator[None]:
        # Without it, the writers of this process collide on the unique index and most of their work is thrown away.
        # Between processes the index decides.
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        async with lock:
            yield

    async def _insert_next(self, database: AsyncDatabase[Document], key: str, new: NewMessage) -> tuple[Message, bool]:
        """Insert as last + 1 until no other process has taken that number; numbers have no gaps."""
        message_id = f"{key}/{new.id}"
        while True:
            last = await database.messages.find_one({"conversation_id": key}, {"seq": 1}, sort=[("seq", -1)])
            document = {
                "_id": message_id,
                "conversation_id": key,
                "seq": last["seq"] + 1 if last else 1,
                "timestamp": now(),
                **new.model_dump(),
            }
            try:
                await database.messages.insert_one(document)
            except DuplicateKeyError:
                if stored := await database.messages.find_one({"_id": message_id}):
                    return _same_message(stored, new), False
            else:
                return _message(document), True


def _same_message(stored: Document, new: NewMessage) -> Message:
    message = _message(stored)
    if new.model_dump() != message.model_dump(include={"id", "role", "content", "metadata"}):
        raise InvalidInput("id", "was already used for another message of this conversation")
    return message


def _document(model: Conversation | Activity) -> Document:
    values = model.model_dump()
    return {"_id": str(values.pop("id")), **values, "user_id": str(model.user_id)}


def _conversation(document: Document) -> Conversation:
    return Conversation(id=document["_id"], **{name: document[name] for name in document if name != "_id"})


def _message(document: Document) -> Message:
    return Message.model_validate(document)
