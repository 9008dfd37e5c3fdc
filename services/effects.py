"""What a transaction can owe to Redis and MongoDB. Adding an effect takes one class here.

Each is applied at least once, possibly twice and possibly late, so `apply` must be idempotent.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from models.activity import Activity
from models.conversation import Conversation
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import profile_key, session_key
from repositories.conversation_repo import ConversationRepository
from repositories.seat_repo import SeatRepository
from repositories.session_repo import SessionRepository
from tristore.cache.feed import Feed
from tristore.cache.fenced_cache import FencedCache
from tristore.outbox.effects import Effect, Later, NotYet
from tristore.saga.effects import GoOn


@dataclass(frozen=True)
class Targets:
    """What effects write to."""

    cache: FencedCache
    conversations: ConversationRepository
    activity: ActivityRepository
    feed: Feed
    seats: SeatRepository
    sagas: GoOn
    sessions: SessionRepository


class CreateConversation(Effect):
    store: ClassVar = "mongodb"
    conversation: Conversation

    @property
    def aggregate(self) -> str:
        return user_key(self.conversation.user_id)

    async def apply(self, to: Targets) -> None:
        await to.conversations.add(self.conversation)


class RecordActivity(Effect):
    store: ClassVar = "mongodb"
    activity: Activity

    @property
    def aggregate(self) -> str:
        return user_key(self.activity.user_id)

    async def apply(self, to: Targets) -> None:
        await to.activity.add(self.activity)


class DeleteConversation(Effect):
    """In any order: whoever asks again does not wait for the lease of who got no answer, nor for the second pass."""

    store: ClassVar = "mongodb"
    any_order: ClassVar = True
    conversation_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"conversation:{self.conversation_id}"

    async def apply(self, to: Targets) -> None:
        await to.conversations.delete(self.conversation_id, for_good=False)


class PurgeConversation(Later):
    store: ClassVar = "mongodb"
    conversation_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"conversation:{self.conversation_id}"

    async def apply(self, to: Targets) -> None:
        await to.conversations.delete(self.conversation_id, for_good=True)


class EraseDocuments(Effect):
    """Of a user who is erased."""

    store: ClassVar = "mongodb"
    user_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return user_key(self.user_id)

    async def apply(self, to: Targets) -> None:
        await to.conversations.erase(self.user_id, for_good=False)
        await to.activity.erase(self.user_id)


class EraseDocumentsAgain(Later):
    store: ClassVar = "mongodb"
    user_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return user_key(self.user_id)

    async def apply(self, to: Targets) -> None:
        await to.conversations.erase(self.user_id, for_good=True)
        await to.activity.erase(self.user_id)


class ForgetProfile(Later):
    """Remove the key as well: it names the user. By now no load from before the erasure can be stored any more, and no
    copy of a session lives that a repeated erasure would have to end."""

    store: ClassVar = "redis"
    user_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return user_key(self.user_id)

    async def apply(self, to: Targets) -> None:
        await to.cache.forget(profile_key(self.user_id))
        await to.sessions.forget(self.user_id)


class ForgetMarker(Later):
    """Of seats that were taken or given back. Until then it keeps that from happening twice."""

    store: ClassVar = "mongodb"
    course_id: uuid.UUID
    marker: str
    until: datetime

    @property
    def aggregate(self) -> str:
        return f"marker:{self.marker}"

    async def apply(self, to: Targets) -> None:
        if not await to.seats.forget(self.course_id, self.marker, self.until):
            raise NotYet


class InvalidateProfile(Effect):
    store: ClassVar = "redis"
    any_order: ClassVar = True
    user_id: uuid.UUID
    version: int
    heard: bool = False
    """Whether its sender waits until every process has heard of it."""

    @property
    def aggregate(self) -> str:
        return user_key(self.user_id)

    @property
    def key(self) -> str:
        return profile_key(self.user_id)

    def at_once(self, to: Targets) -> None:
        to.cache.require(self.key, self.version)

    async def apply(self, to: Targets) -> None:
        await to.cache.invalidate(self.key, self.version, heard=self.heard)


class InvalidateSession(Effect):
    store: ClassVar = "redis"
    any_order: ClassVar = True
    session_id: uuid.UUID
    token_hash: str
    version: int

    @property
    def aggregate(self) -> str:
        return session_aggregate(self.session_id)

    @property
    def key(self) -> str:
        return session_key(bytes.fromhex(self.token_hash))

    def at_once(self, to: Targets) -> None:
        to.cache.require(self.key, self.version)

    async def apply(self, to: Targets) -> None:
        try:
            await to.cache.invalidate(self.key, self.version, heard=True)
        finally:  # also without Redis, for the streams of this process
            to.feed.send(self.aggregate)


class OpenSeats(Effect):
    """Of a new course, which nobody can order before."""

    store: ClassVar = "mongodb"
    course_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"course:{self.course_id}"

    async def apply(self, to: Targets) -> None:
        await to.seats.open(self.course_id)


def session_aggregate(session_id: uuid.UUID) -> str:
    """Names a session as an aggregate of the outbox, and to the processes when it ends."""
    return f"session:{session_id}"


def user_key(user_id: uuid.UUID) -> str:
    """Names a user as an aggregate of the outbox."""
    return f"user:{user_id}"
