"""What a transaction can owe to Redis and MongoDB. To add an effect, write one class here.

Each is applied at least once, perhaps twice, perhaps late. So `apply` must be idempotent.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from database.mongodb import MongoStore
from models.activity import Activity
from models.conversation import Conversation
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import profile_key, session_key
from repositories.conversation_repo import ConversationRepository
from repositories.session_repo import SessionRepository
from tristore.cache.feed import Feed
from tristore.cache.fenced_cache import FencedCache
from tristore.cache.invalidation import Invalidate
from tristore.links import LinkRepository, Recipient
from tristore.mail.effects import MAIL
from tristore.mail.mailer import Mailer
from tristore.outbox.effects import Effect, Later
from tristore.saga import effects as saga_effects
from tristore.saga.effects import GoOn

QUEUES = ("redis", "mongodb", saga_effects.QUEUE, MAIL)
"""All that effects may name as their queue."""


@dataclass(frozen=True)
class Targets:
    """What effects write to."""

    cache: FencedCache
    conversations: ConversationRepository
    activity: ActivityRepository
    feed: Feed
    mongodb: MongoStore
    sagas: GoOn
    sessions: SessionRepository
    erase_documents: Callable[[uuid.UUID, bool], Awaitable[None]]
    """Of a user, and whether for good."""
    recipient: Callable[[uuid.UUID], Awaitable[Recipient | None]]
    links: LinkRepository
    mailer: Mailer | None


class OfUser(Effect):
    """Base of what is owed for a user."""

    user_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return user_key(self.user_id)


class OfConversation(Effect):
    """Base of what is owed for a conversation."""

    conversation_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"conversation:{self.conversation_id}"


class CreateConversation(Effect):
    queue: ClassVar = "mongodb"
    conversation: Conversation

    @property
    def aggregate(self) -> str:
        return user_key(self.conversation.user_id)

    async def apply(self, to: Targets) -> None:
        await to.conversations.add(self.conversation)


class RecordActivity(Effect):
    queue: ClassVar = "mongodb"
    activity: Activity

    @property
    def aggregate(self) -> str:
        return user_key(self.activity.user_id)

    async def apply(self, to: Targets) -> None:
        await to.activity.add(self.activity)


class DeleteConversation(OfConversation):
    """It may overtake: a repeated request waits neither for the lease of the first one, nor for the second pass."""

    queue: ClassVar = "mongodb"
    any_order: ClassVar = True

    async def apply(self, to: Targets) -> None:
        await to.conversations.delete(self.conversation_id, for_good=False)


class PurgeConversation(OfConversation, Later):
    queue: ClassVar = "mongodb"

    async def apply(self, to: Targets) -> None:
        await to.conversations.delete(self.conversation_id, for_good=True)


class EraseDocuments(OfUser):
    """The first pass of an erasure."""

    queue: ClassVar = "mongodb"

    async def apply(self, to: Targets) -> None:
        await to.erase_documents(self.user_id, False)


class EraseDocumentsAgain(OfUser, Later):
    queue: ClassVar = "mongodb"

    async def apply(self, to: Targets) -> None:
        await to.erase_documents(self.user_id, True)


class ForgetProfile(OfUser, Later):
    """The second pass in Redis: the key goes as well, because it names the user. By now no load from before the erasure
    can be stored, and no session has a copy that a repeated erasure would have to end."""

    queue: ClassVar = "redis"

    async def apply(self, to: Targets) -> None:
        await to.cache.forget(profile_key(self.user_id))
        await to.sessions.forget(self.user_id)


class InvalidateProfile(OfUser, Invalidate):
    @property
    def key(self) -> str:
        return profile_key(self.user_id)


class InvalidateSession(Invalidate):
    heard: bool = True
    session_id: uuid.UUID
    token_hash: str

    @property
    def aggregate(self) -> str:
        return session_aggregate(self.session_id)

    @property
    def key(self) -> str:
        return session_key(bytes.fromhex(self.token_hash))

    async def apply(self, to: Targets) -> None:
        try:
            await super().apply(to)
        finally:  # also when Redis is down: this process has streams of its own
            to.feed.send(self.aggregate)


def session_aggregate(session_id: uuid.UUID) -> str:
    """Names a session as an aggregate of the outbox, and to the processes when it ends."""
    return f"session:{session_id}"


def user_key(user_id: uuid.UUID) -> str:
    """Names a user as an aggregate of the outbox."""
    return f"user:{user_id}"
