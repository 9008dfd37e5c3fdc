"""The base of all effects: what a transaction owes to other stores.

Each is applied at least once, perhaps twice, perhaps late. So `apply` must be idempotent.
"""

import re
import uuid
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from tristore.errors import StoreUnavailable
from tristore.outbox.tables import AGGREGATE_LENGTH

AGGREGATE = re.compile(r"[a-z][a-z_]*:\S+")
OTHER_RELEASE = "another release"
"""What waits for this, where others wait for a store, can be done by another release alone."""


class NotYet(Exception):
    """It is not possible now, but will be: ask again."""


class Hopeless(Exception):
    """It will never be possible: the effect is parked at once. The message is for operators, and never a value."""


class Waits(StoreUnavailable):
    """A store is not available. After so many seconds something is decided without it."""

    def __init__(self, unavailable: StoreUnavailable, seconds: float) -> None:
        super().__init__(unavailable.store, unavailable.reason, unavailable.cause)
        self.seconds = seconds


class Unknown(StoreUnavailable):
    """This release does not know what is owed, or cannot read it. Another one may: in a process beside this one, or in
    a later one. So it waits, as for a store that refuses it, and is never parked."""

    def __init__(self, what: str) -> None:
        """`what`: the name of the effect, or of the saga. Never a value."""
        super().__init__(OTHER_RELEASE, "not known", what)


class Effect(BaseModel):
    """One idempotent change of one other store. Its fields are the payload, and `apply` is the handler.

    The outbox stores the name of the class. Whoever renames a class orphans what is owed under the old name.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    by_name: ClassVar[dict[str, type["Effect"]]] = {}
    queue: ClassVar[str]
    """Where it waits, such as the name of the store that it changes. The outbox must serve a queue of this name."""
    any_order: ClassVar[bool] = False
    """Whether it may overtake earlier effects on its aggregate, because it carries a version. It is then always tried
    at once, also while its store is thought to be down: readers in other processes may still reach that store."""

    @property
    @abstractmethod
    def aggregate(self) -> str:
        """What it belongs to: a kind and an id. Effects of one aggregate and queue are applied in order."""

    @property
    def delay(self) -> float:
        """Seconds that it waits after everything before it in its stream is done. Later effects do not wait for it: it
        comes last."""
        return 0

    def __init_subclass__(cls) -> None:
        Effect.by_name[cls.__name__] = cls

    @model_validator(mode="after")
    def _check_aggregate(self) -> Self:
        if len(self.aggregate) > AGGREGATE_LENGTH or not AGGREGATE.fullmatch(self.aggregate):
            name = type(self).__name__
            raise ValueError(
                f"{name}.aggregate is {self.aggregate!r}. Give it a kind, a colon and an id, such as account:<id>, "
                f"without spaces and of at most {AGGREGATE_LENGTH} characters."
            )
        return self

    def at_once(self, to: Any) -> None:
        """What this process must know from the commit on, before the effect is applied. Does not wait."""
        return

    @abstractmethod
    async def apply(self, to: Any) -> None:
        """Make the change, once, however often this is called. Raises StoreUnavailable, NotYet, Hopeless."""


class Later(Effect):
    """Is applied last, so many seconds after everything before it in its stream is done.

    Such as the second pass of a deletion: by then everything has arrived that was under way at the first pass, or it
    never will. This holds however long the first pass had to wait for its store.
    """

    after_seconds: float

    @property
    def delay(self) -> float:
        return self.after_seconds


@dataclass(frozen=True)
class Stream:
    """The key of a stream, with the token of a lease on it."""

    aggregate: str
    queue: str
    token: uuid.UUID


class Due(NamedTuple):
    """An effect to apply now."""

    id: int
    effect: Effect
    traceparent: str | None = None
    """Names the request that owes it. None where it is not known, or is that request itself."""


@dataclass(frozen=True)
class Owed:
    """A recorded effect. It has its stream if the recording transaction took the lease, which it does when the stream
    was empty."""

    id: int
    effect: Effect
    stream: Stream | None
