"""What a transaction can owe to the other stores: the base of all effects.

Each is applied at least once, possibly twice and possibly late, so `apply` must be idempotent.
"""

import uuid
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tristore.errors import StoreUnavailable
from tristore.outbox.tables import TargetStore


class NotYet(Exception):
    """It cannot be done now, but will be: ask again."""


class Waits(StoreUnavailable):
    """A store is not available, and in so many seconds something is decided without it."""

    def __init__(self, unavailable: StoreUnavailable, seconds: float) -> None:
        super().__init__(unavailable.store, unavailable.reason, unavailable.cause)
        self.seconds = seconds


class Effect(BaseModel):
    """One idempotent change of one other store, with its handler; its fields are the payload. The name of the class is
    what the outbox stores: renaming one orphans what is owed."""

    model_config = ConfigDict(frozen=True)

    by_name: ClassVar[dict[str, type["Effect"]]] = {}
    store: ClassVar[TargetStore]
    any_order: ClassVar[bool] = False
    """Whether it carries a version, so that it may overtake earlier effects on its aggregate. It is then tried at once
    in any case, also while its store is thought to be down, because readers elsewhere may not think so."""

    @property
    @abstractmethod
    def aggregate(self) -> str:
        """What it belongs to, such as `user:<id>`. Effects on one aggregate and store are applied in order."""

    @property
    def delay(self) -> float:
        """Seconds before which it is not applied, from when all that was before it in its stream is done. What comes
        after it does not wait for it: it comes last."""
        return 0

    def __init_subclass__(cls) -> None:
        Effect.by_name[cls.__name__] = cls

    def at_once(self, to: Any) -> None:
        """What this process must heed from the commit on, before it is applied. Waits for nothing."""
        return

    @abstractmethod
    async def apply(self, to: Any) -> None:
        """Make it so, once, however often this is called. Raises StoreUnavailable, NotYet."""


class Later(Effect):
    """So many seconds after what is before it in its stream is done, and last. As the second pass of a deletion: when
    whatever was under way at the first has arrived or never will, however long the first had to wait for its store."""

    after_seconds: float

    @property
    def delay(self) -> float:
        return self.after_seconds


@dataclass(frozen=True)
class Stream:
    """The key of a stream with the token of a lease on it."""

    aggregate: str
    store: TargetStore
    token: uuid.UUID


@dataclass(frozen=True)
class Owed:
    """A recorded effect: its id, and its stream if the recording transaction took the lease (it does when the stream
    was empty)."""

    id: int
    effect: Effect
    stream: Stream | None
