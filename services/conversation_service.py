"""Conversations and messages: all in MongoDB, always of their owner."""

import uuid

from models.base import new_id, now
from models.conversation import (
    Conversation,
    ConversationPage,
    ConversationWithMessages,
    Message,
    MessagePage,
    NewConversation,
    NewMessage,
)
from repositories.conversation_repo import ConversationRepository
from services.errors import InvalidInput, NotFound


class ConversationService:
    """Every method raises StoreUnavailable when MongoDB is down, and NotFound for another's conversation."""

    def __init__(self, *, conversations: ConversationRepository) -> None:
        self._conversations = conversations

    async def create(self, owner: uuid.UUID, new: NewConversation) -> Conversation:
        created = now()
        conversation = Conversation(id=new_id(), user_id=owner, title=new.title, created_at=created, updated_at=created)
        await self._conversations.add(conversation)
        return conversation

    async def recent(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> ConversationPage:
        """Newest first by creation. The cursor is the id of the last one seen: pages neither miss nor repeat."""
        found = await self._conversations.page(owner, limit + 1, cursor)
        more = len(found) > limit
        return ConversationPage(items=found[:limit], next_cursor=str(found[limit - 1].id) if more else None)

    async def read(self, conversation_id: uuid.UUID, owner: uuid.UUID, messages: int) -> ConversationWithMessages:
        """The conversation with its last messages."""
        conversation = await self._owned(conversation_id, owner)
        last = await self._conversations.messages(conversation_id, messages) if messages else []
        return ConversationWithMessages(**conversation.model_dump(), messages=last)

    async def append(self, conversation_id: uuid.UUID, owner: uuid.UUID, new: NewMessage) -> tuple[Message, bool]:
        """The message with its number, and whether it is new. Raises InvalidInput for an id used otherwise."""
        appended = await self._conversations.append(conversation_id, owner, new)
        if appended is None:
            raise NotFound
        return appended

    async def messages(
        self, conversation_id: uuid.UUID, owner: uuid.UUID, limit: int, after: int | None, before: int | None
    ) -> MessagePage:
        """A page forward from `after`, else backward from `before`, else the last ones. Raises InvalidInput."""
        if after is not None and before is not None:
            raise InvalidInput("before_seq", "must not be sent together with after_seq")
        await self._owned(conversation_id, owner)
        found = await self._conversations.messages(conversation_id, limit + 1, after=after, before=before)
        if len(found) <= limit:
            return MessagePage(items=found, next=None)
        items = found[:limit] if after is not None else found[1:]
        return MessagePage(items=items, next=items[-1].seq if after is not None else items[0].seq)

    async def _owned(self, conversation_id: uuid.UUID, owner: uuid.UUID) -> Conversation:
        conversation = await self._conversations.get(conversation_id, owner)
        if conversation is None:
            raise NotFound
        return conversation
