"""Conversations and messages in MongoDB, through either driver."""

import uuid
from collections.abc import Callable

from pydantic import BaseModel
from pymongo import ReturnDocument

from database.mongodb import Document, MongoStore
from models.conversation import (
    PREVIEW,
    Conversation,
    ConversationPage,
    ConversationWithMessages,
    ExportedConversation,
    LastMessage,
    ListedConversation,
    Message,
    MessageDraft,
    Sort,
)
from tristore.errors import InvalidInput, TooMany
from tristore.idempotency import IdempotencyKey
from tristore.models import Page, now
from tristore.stores.keyed_documents import FORGET_BODY, has_made, insert_keyed, retire
from tristore.stores.numbered_log import IdTaken, Names, NumberedLog

LIVING: Document = {"deleted": {"$ne": True}}
MESSAGES = Names(
    "conversation", "messages", "conversations", log="conversation_id", owner="user_id", living=LIVING, marked="own_seq"
)
LAST_MESSAGE = {name: f"${name}" for name in ("seq", "role", "timestamp", "own_seq")} | {
    "preview": {"$substrCP": ["$content", 0, PREVIEW]}
}


class ConversationRepository:
    """Each method raises StoreUnavailable when MongoDB does not answer in time. Ownership is in every query.

    A conversation is deleted in two passes: the first hides it and deletes its messages, the second, when nothing that
    was under way at that time can still arrive, deletes again and removes the conversation itself."""

    def __init__(self, mongodb: MongoStore, wake: Callable[[str], None] = lambda name: None) -> None:
        """`wake` is told the name of a conversation that has new messages, or is deleted."""
        self._mongodb = mongodb
        self._wake = wake
        self.log = NumberedLog(mongodb, MESSAGES, lambda message: message["role"] == "user", wake)
        self.hear, self.hear_of_all = self.log.hear, self.log.forget_all

    async def add(
        self, new: Conversation, key: IdempotencyKey | None = None, body: BaseModel | None = None
    ) -> Conversation:
        """Insert it once, however often this is asked; with a key, see insert_keyed."""
        return _conversation(await insert_keyed(self._mongodb, "conversations", _document(new), key, body))

    async def refuse_beyond(self, most: int, owner: uuid.UUID, key: IdempotencyKey | None) -> None:
        """Raises TooMany when the owner has so many, unless one of them is what the key has made. Requests that come at
        the same moment may each add one."""
        async with self._mongodb.operation() as database:
            last = await database.conversations.find(_of(owner), {"_id": 1}).skip(most - 1).limit(1).to_list(1)
        if last and not await has_made(self._mongodb, "conversations", key):
            raise TooMany(most, "conversations")

    async def get(self, conversation_id: uuid.UUID, owner: uuid.UUID) -> Conversation | None:
        async with self._mongodb.reading() as database:
            found = await database.conversations.find_one(_this(conversation_id, owner))
        return _conversation(found) if found else None

    async def is_deleted(self, conversation_id: uuid.UUID, owner: uuid.UUID) -> bool | None:
        """None when the owner has none of this id, or it is deleted for good."""
        mine = {"_id": str(conversation_id), "user_id": str(owner)}
        async with self._mongodb.operation() as database:
            found = await database.conversations.find_one(mine, {"deleted": 1})
        return bool(found.get("deleted")) if found else None

    async def rename(self, conversation_id: uuid.UUID, owner: uuid.UUID, title: str) -> Conversation | None:
        """The conversation with its new title, None when the owner has none of this id. Changes only what it has read:
        what was given up and lands late undoes no later one."""
        this = _this(conversation_id, owner)
        change = {"$set": {"title": title}, "$max": {"updated_at": now()}, "$inc": {"renames": 1}}
        async with self._mongodb.operation() as database:
            while found := await database.conversations.find_one(this, {"renames": 1}):
                as_read = this | {"renames": found.get("renames")}
                renamed = await database.conversations.find_one_and_update(
                    as_read, change, return_document=ReturnDocument.AFTER
                )
                if renamed:
                    return _conversation(renamed)
        return None

    async def delete(self, conversation_id: uuid.UUID, *, for_good: bool) -> None:
        """The first pass, or the second (`for_good`), which leaves behind the key that has started it."""
        await self._delete({"_id": str(conversation_id)})
        if for_good:
            await retire(self._mongodb, "conversations", {"_id": str(conversation_id)})

    async def erase(self, owner: uuid.UUID, *, for_good: bool) -> None:
        """The first pass over all conversations of a user, or the second (`for_good`)."""
        await self._delete({"user_id": str(owner)})
        if for_good:
            await self._mongodb.delete_all("conversations", {"user_id": str(owner)})

    async def _delete(self, which: Document) -> None:
        hidden = {"$set": {"deleted": True, "title": ""}, **FORGET_BODY}
        async with self._mongodb.operation() as database:
            await database.conversations.update_many(which | LIVING, hidden)
        last = ""
        while ids := await self._ids(which, last):
            await self._mongodb.delete_all("messages", {"conversation_id": {"$in": ids}})
            last = ids[-1]

    async def _ids(self, which: Document, after: str) -> list[str]:
        """Of the next ones. All processes are told to ask again whether there is such a conversation."""
        query = {"$and": [which, {"_id": {"$gt": after}}]}
        async with self._mongodb.operation() as database:
            found = await database.conversations.find(query, {"user_id": 1}).sort("_id", 1).limit(500).to_list(500)
        for document in found:
            self.log.forget(document["user_id"], document["_id"])
            self._wake(MESSAGES.name(document["user_id"], document["_id"]))
        return [document["_id"] for document in found]

    async def page(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[ExportedConversation]:
        """Newest first by creation, without their messages."""
        return await self._mongodb.page("conversations", _of(owner), limit, cursor, _exported)

    async def listed(self, owner: uuid.UUID, sort: Sort, limit: int, cursor: str | None) -> ConversationPage:
        """Newest first: by creation, or by the last message or change. Raises InvalidInput."""
        moves = "updated_at" if sort == "recent" else ""
        heads, following = await self._mongodb.newest("conversations", _of(owner), limit, cursor, moves)
        last = await self.log.last_entries([head["_id"] for head in heads], LAST_MESSAGE)
        items = [_listed(head, last.get(head["_id"], {})) for head in heads]
        return ConversationPage(items=items, next_cursor=following)

    async def mark_read(self, conversation_id: uuid.UUID, owner: uuid.UUID, seq: int) -> ListedConversation | None:
        """All messages up to this number, and never fewer than before. None when the owner has no such conversation.
        Raises InvalidInput when there is no such message yet."""
        id_, this = str(conversation_id), _this(conversation_id, owner)
        last = (await self.log.last_entries([id_], LAST_MESSAGE)).get(id_, {})
        if seq > last.get("seq", 0):
            if await self.get(conversation_id, owner) is None:
                return None
            raise InvalidInput("seq", f"must be at most {last.get('seq', 0)}, the number of the last message")
        async with self._mongodb.operation() as database:
            head = await database.conversations.find_one_and_update(
                this, {"$max": {"read_seq": seq}}, return_document=ReturnDocument.AFTER
            )
        return _listed(head, last) if head else None

    async def messages(
        self,
        conversation_id: uuid.UUID,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
        most_bytes: int | None = None,
    ) -> list[Message]:
        """Up to `limit` messages in order: those following number `after`, else the last ones preceding `before`.
        Fewer, and at least one, when they have `most_bytes` together."""
        found = await self.log.read(str(conversation_id), limit, after=after, before=before, most_bytes=most_bytes)
        return [message_of(document) for document in found]

    async def read(
        self,
        conversation_id: uuid.UUID,
        owner: uuid.UUID,
        limit: int,
        *,
        after: int | None = None,
        before: int | None = None,
    ) -> ConversationWithMessages | None:
        """With messages as `messages` gives them. None when the owner has no such conversation."""
        found = await self.log.read_with_head(str(conversation_id), str(owner), limit, after=after, before=before)
        if found is None:
            return None
        head, messages = found
        newest = max([head["updated_at"], *(message["timestamp"] for message in messages)])
        told = head | {"id": head["_id"], "updated_at": newest}
        return ConversationWithMessages(**told | {"messages": [message_of(message) for message in messages]})

    async def append(
        self, conversation_id: uuid.UUID, owner: uuid.UUID, new: MessageDraft
    ) -> tuple[Message, bool] | None:
        """Give the message the next number. Returns it with whether it is new (not a repeat of its id), or None when
        the owner has no such conversation. Raises InvalidInput when the id was used for another message."""
        try:
            appended = await self.log.append(str(conversation_id), str(owner), new.id, vars(new).copy())
        except IdTaken:
            raise InvalidInput("id", "was already used for another message of this conversation") from None
        return (message_of(appended[0]), appended[1]) if appended else None

    async def close(self) -> None:
        """Wait for the messages that are under way."""
        await self.log.close()


def message_of(document: Document) -> Message:
    """Not validated: only what was is in there."""
    return Message.model_construct(**{name: document[name] for name in Message.model_fields})


def _of(owner: uuid.UUID) -> Document:
    return {"user_id": str(owner), **LIVING}


def _this(conversation_id: uuid.UUID, owner: uuid.UUID) -> Document:
    return {"_id": str(conversation_id), **_of(owner)}


def _document(conversation: Conversation) -> Document:
    values = conversation.model_dump()
    return {"_id": str(values.pop("id")), **values, "user_id": str(conversation.user_id)}


def _conversation(document: Document) -> Conversation:
    return Conversation(**document | {"id": document["_id"]})


def _exported(document: Document) -> ExportedConversation:
    return ExportedConversation(**{"read_seq": 0} | document | {"id": document["_id"]}, messages=[])


def _listed(head: Document, last: Document) -> ListedConversation:
    """`last`: of its last message, empty for none."""
    number = last.get("seq", 0)
    read = min(number, max(head.get("read_seq", 0), last.get("own_seq") or 0))
    told = {"id": head["_id"], "read_seq": read, "unread": number - read}
    return ListedConversation(**head | told, last_message=LastMessage(**last) if last else None)
