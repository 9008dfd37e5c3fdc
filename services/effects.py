"""What a transaction can owe to Redis and MongoDB. Adding an effect takes one class here.

Each is applied at least once, possibly twice and possibly late, so `apply` must be idempotent.
"""

import uuid
from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from models.activity import Activity
from models.conversation import Conversation
from models.outbox import Effect
from models.saga import Direction
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import CacheRepository
from repositories.conversation_repo import ConversationRepository
from repositories.seat_repo import SeatRepository
from repositories.session_repo import SessionRepository
from repositories.wake_up_repo import WakeUpRepository
from services.errors import StoreUnavailable


class NotYet(Exception):
    """It cannot be done now, but will be: ask again."""


class Waits(StoreUnavailable):
    """A store is not available, and in so many seconds something is decided without it."""

    def __init__(self, unavailable: StoreUnavailable, seconds: float) -> None:
        super().__init__(unavailable.store, unavailable.reason, unavailable.cause)
        self.seconds = seconds


class GoOn(Protocol):
    """What continues sagas."""

    async def go_on(self, saga_id: uuid.UUID, direction: Direction) -> None: ...


@dataclass(frozen=True)
class Targets:
    """What effects write to."""

    cache: CacheRepository
    conversations: ConversationRepository
    activity: ActivityRepository
    wake_ups: WakeUpRepository
    seats: SeatRepository
    sagas: GoOn
    sessions: SessionRepository


class Applicable(Effect):
    """An effect with its handler. The class's name is what the outbox stores: renaming one orphans what is owed."""

    by_name: ClassVar[dict[str, type["Applicable"]]] = {}

    def __init_subclass__(cls) -> None:
        Applicable.by_name[cls.__name__] = cls

    def at_once(self, to: Targets) -> None:
        """What this process must heed from the commit on, before it is applied. Waits for nothing."""
        return

    @abstractmethod
    async def apply(self, to: Targets) -> None:
        """Make it so, once, however often this is called. Raises StoreUnavailable, NotYet."""


class Later(Applicable):
    """So many seconds after what is before it in its stream is done, and last. As the second pass of a deletion: when
    whatever was under way at the first has arrived or never will, however long the first had to wait for its store."""

    after_seconds: float

    @property
    def delay(self) -> float:
        return self.after_seconds


class CreateConversation(Applicable):
    store: ClassVar = "mongodb"
    conversation: Conversation

    @property
    def aggregate(self) -> str:
        return user_key(self.conversation.user_id)

    async def apply(self, to: Targets) -> None:
        await to.conversations.add(self.conversation)


class RecordActivity(Applicable):
    store: ClassVar = "mongodb"
    activity: Activity

    @property
    def aggregate(self) -> str:
        return user_key(self.activity.user_id)

    async def apply(self, to: Targets) -> None:
        await to.activity.add(self.activity)


class DeleteConversation(Applicable):
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


class EraseDocuments(Applicable):
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
        await to.cache.forget(user_key(self.user_id))
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


class ContinueSaga(Later):
    """Each direction has a stream of its own, so that undoing has all its attempts before it, and may wait."""

    store: ClassVar = "sagas"
    saga_id: uuid.UUID
    undo: bool = False
    after_seconds: float = 0

    @property
    def aggregate(self) -> str:
        return f"saga:{self.saga_id}:undo" if self.undo else f"saga:{self.saga_id}"

    async def apply(self, to: Targets) -> None:
        await to.sagas.go_on(self.saga_id, "compensating" if self.undo else "running")


class InvalidateProfile(Applicable):
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
        return user_key(self.user_id)

    def at_once(self, to: Targets) -> None:
        to.cache.require(self.key, self.version)

    async def apply(self, to: Targets) -> None:
        await to.cache.invalidate(self.key, self.version, heard=self.heard)


class InvalidateSession(Applicable):
    store: ClassVar = "redis"
    any_order: ClassVar = True
    session_id: uuid.UUID
    token_hash: str
    version: int

    @property
    def aggregate(self) -> str:
        return f"session:{self.session_id}"

    @property
    def key(self) -> str:
        return session_key(bytes.fromhex(self.token_hash))

    def at_once(self, to: Targets) -> None:
        to.cache.require(self.key, self.version)

    async def apply(self, to: Targets) -> None:
        try:
            await to.cache.invalidate(self.key, self.version, heard=True)
        finally:  # also without Redis, for the streams of this process
            to.wake_ups.send(self.aggregate)


class OpenSeats(Applicable):
    """Of a new course, which nobody can order before."""

    store: ClassVar = "mongodb"
    course_id: uuid.UUID

    @property
    def aggregate(self) -> str:
        return f"course:{self.course_id}"

    async def apply(self, to: Targets) -> None:
        await to.seats.open(self.course_id)


def session_key(token_hash: bytes) -> str:
    """Names the session's copy in the cache."""
    return f"session:{token_hash.hex()}"


def user_key(user_id: uuid.UUID) -> str:
    """Names the user's profile in the cache, and the user as an aggregate of the outbox."""
    return f"user:{user_id}"
