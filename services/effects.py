"""What a transaction can owe to Redis and MongoDB. Adding an effect takes one class here.

Each is applied at least once, possibly twice and possibly late, so `apply` must be idempotent.
"""

import uuid
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from models.activity import Activity
from models.conversation import Conversation
from models.outbox import Effect
from repositories.cache_repo import CacheRepository
from repositories.conversation_repo import ConversationRepository


@dataclass(frozen=True)
class Targets:
    """The repositories that effects write to."""

    cache: CacheRepository
    conversations: ConversationRepository


class Applicable(Effect):
    @abstractmethod
    async def apply(self, to: Targets) -> None:
        """Make it so, once, however often this is called. Raises StoreUnavailable."""


class CreateConversation(Applicable):
    store: ClassVar = "mongodb"
    conversation: Conversation

    async def apply(self, to: Targets) -> None:
        await to.conversations.add(self.conversation)


class RecordActivity(Applicable):
    store: ClassVar = "mongodb"
    activity: Activity

    async def apply(self, to: Targets) -> None:
        await to.conversations.add_activity(self.activity)


class InvalidateProfile(Applicable):
    store: ClassVar = "redis"
    user_id: uuid.UUID
    version: int

    async def apply(self, to: Targets) -> None:
        await to.cache.invalidate(profile_key(self.user_id), self.version)


def profile_key(user_id: uuid.UUID) -> str:
    return f"user:{user_id}"
