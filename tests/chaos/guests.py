"""What visits the lab besides the learners: each part of the app that can be taken out brings a guest of its own."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from config import Settings
from tests.chaos.learner import Learner
from tests.chaos.memory import Talk, Violation
from tests.chaos.schedule import Plan
from tests.chaos.snapshot import Snapshot

if TYPE_CHECKING:
    from tests.chaos.client import Client, Habits

Found = Callable[[str, str], Violation]
"""Makes a violation of what was found, with the history of what it is about."""


class Operation(Protocol):
    __name__: str

    def __call__(self, learner: Learner) -> Awaitable[bool | None]: ...


class Guest:
    """One for the whole run. A guest needs only what it has something to do for."""

    variants: ClassVar[Mapping[str, Mapping[str, type]]] = {}
    """Broken variants: the classes that take the place of the right ones in `wiring` or `components`, by name."""
    plans: ClassVar[Mapping[str, Plan]] = {}
    """The faults that each of its variants concentrates on."""

    in_gate: ClassVar[Sequence[str]] = ()
    """Those of its variants that the gate runs."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Environment of the apps, for all guests."""

    def habits(self) -> "Mapping[str, Habits]":
        """Of the clients, for each variant that needs others."""
        return {}

    async def arrive(self) -> None:
        """Begin what the apps will need."""

    async def leave(self) -> None:
        """End it."""

    def operations(self, client: "Client") -> list[tuple[Operation, int]]:
        """What a client does besides, and how often."""
        return []

    def last_requests(self, client: "Client", learner: Learner, token: str) -> Iterator[Awaitable[object]]:
        """What is under way while the learner is erased: one attempt each."""
        return iter(())

    async def hang_up(self, learner: Learner, *, forget: bool) -> None:
        """Let go of what is open for the learner. `forget`: nothing more is expected of it."""

    async def is_at_rest(self, settings: Settings, learners: list[Learner]) -> bool:
        """Whether all that it waits for has come."""
        return True

    async def look(self, settings: Settings) -> None:
        """Read what its checks need."""

    def seen(self, learner: Learner, talk: Talk) -> list[tuple[int, str]]:
        """Numbers and contents that a reader was given."""
        return []

    def of_learner(self, learner: Learner, stores: Snapshot) -> Iterator[Violation]:
        """What must be true for one learner."""
        return iter(())

    def of_all(self, learners: list[Learner], stores: Snapshot, found: Found) -> Iterator[Violation]:
        """What must be true of whatever is there."""
        return iter(())


def guests() -> list[Guest]:
    """One of each module `guest_*.py` in this folder."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("guest_*.py"))
    return [import_module(f"{__package__}.{name}").GUEST() for name in names]
