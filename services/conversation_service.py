"""Conversations and messages: all in MongoDB, always of their owner. Only deleting takes longer than a request may, so
that is owed through the outbox."""

import uuid
from collections.abc import Callable
from contextlib import suppress

from database.unit_of_work import UnitOfWork
from models.activity import happened
from models.conversation import (
    Conversation,
    ConversationPage,
    ConversationUpdate,
    ConversationWithMessages,
    ListedConversation,
    Message,
    MessageDraft,
    MessagePage,
    NewConversation,
    Sort,
    started,
)
from repositories.activity_repo import ActivityRepository
from repositories.conversation_repo import ConversationRepository
from services.effects import DeleteConversation, PurgeConversation, RecordActivity
from tristore.errors import InvalidInput, StoreUnavailable, found
from tristore.idempotency import IdempotencyKey
from tristore.models import fitting, numbered_page
from tristore.outbox.relay import Outbox


class ConversationService:
    """Every method raises StoreUnavailable when MongoDB is down, and NotFound for another's conversation."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        conversations: ConversationRepository,
        activity: ActivityRepository,
        outbox: Outbox,
        purge_seconds: float,
        most: int,
    ) -> None:
        """`most`: conversations of a user."""
        self._unit_of_work = unit_of_work
        self._conversations = conversations
        self._activity = activity
        self._outbox = outbox
        self._purge_seconds = purge_seconds
        self._most = most

    async def create(self, owner: uuid.UUID, new: NewConversation, key: IdempotencyKey | None = None) -> Conversation:
        """With the same key again, the same conversation as it is by now. Raises InProgress, InvalidInput, TooMany,
        Conflict when it is deleted."""
        await self._conversations.refuse_beyond(self._most, owner, key)
        conversation = started(owner, new.title)
        there = await self._conversations.add(conversation, key, new)
        if there.id == conversation.id:
            await self._note(owner, "conversation_started")
        return there

    async def rename(self, conversation_id: uuid.UUID, owner: uuid.UUID, update: ConversationUpdate) -> Conversation:
        conversation = found(await self._conversations.rename(conversation_id, owner, update.title))
        await self._note(owner, "conversation_renamed")
        return conversation

    async def delete(self, conversation_id: uuid.UUID, owner: uuid.UUID) -> None:
        """Delete it with all its messages, however many: what is not deleted at once is owed. Asked again, it is
        deleted. Raises NotFound also when the owner is erased."""
        if found(await self._conversations.is_deleted(conversation_id, owner)):
            return
        async with self._unit_of_work() as uow:
            await uow.for_user(owner)
            uow.effects += [
                DeleteConversation(conversation_id=conversation_id),
                PurgeConversation(conversation_id=conversation_id, after_seconds=self._purge_seconds),
                RecordActivity(activity=happened(owner, "conversation_deleted")),
            ]
            await uow.commit()
        await self._outbox.deliver(uow.owed)

    async def list(self, owner: uuid.UUID, sort: Sort, limit: int, cursor: str | None) -> ConversationPage:
        """Newest first. By creation, pages neither miss nor repeat any. By the last message or change, each comes at
        most once: what moves meanwhile is at the top of a new first page. Raises InvalidInput."""
        return await self._conversations.listed(owner, sort, limit, cursor)

    async def mark_read(self, conversation_id: uuid.UUID, owner: uuid.UUID, seq: int) -> ListedConversation:
        """All messages up to this number; what was read stays read. Raises InvalidInput for a number beyond the last
        message's."""
        return found(await self._conversations.mark_read(conversation_id, owner, seq))

    async def read(self, conversation_id: uuid.UUID, owner: uuid.UUID, messages: int) -> ConversationWithMessages:
        """The conversation with its last messages, fewer where they are large."""
        there = found(await self._conversations.read(conversation_id, owner, messages))
        return there.model_copy(update={"messages": fitting(there.messages)})

    async def append(self, conversation_id: uuid.UUID, owner: uuid.UUID, new: MessageDraft) -> tuple[Message, bool]:
        """The message with its number, and whether it is new. Raises InvalidInput for an id used otherwise."""
        return found(await self._conversations.append(conversation_id, owner, new))

    async def messages(
        self, conversation_id: uuid.UUID, owner: uuid.UUID, limit: int, after: int | None, before: int | None
    ) -> MessagePage:
        """A page forward from `after`, else backward from `before`, else the last ones. Raises InvalidInput."""
        if after is not None and before is not None:
            raise InvalidInput("before_seq", "must not be sent together with after_seq")
        there = found(await self._conversations.read(conversation_id, owner, limit + 1, after=after, before=before))
        return MessagePage(**vars(numbered_page(there.messages, limit, forward=after is not None)))

    async def _note(self, owner: uuid.UUID, action: str) -> None:
        # The write that it tells of is in MongoDB already, and an error would make the client repeat that.
        with suppress(StoreUnavailable):
            await self._activity.add(happened(owner, action))
