"""What the clients remember: what was acknowledged, what was refused for good, and what got no answer."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

LATE_SECONDS = 10.0
"""So long after it was sent, a request without an answer may still take effect: an app may hang, and go on."""
TOLD = 25
WHILE_ERASED = "while erased"
"""What users write at the same time as they delete, or are erased."""

State = Literal["asked for", "living", "ending", "ended"]


class Value:
    """Something that is overwritten: what it may be now."""

    def __init__(self, first: str) -> None:
        self._acknowledged, self._at = first, 0.0
        self._doubtful: list[tuple[float, str]] = []

    def ask_for(self, value: str) -> None:
        self._doubtful.append((time.monotonic(), value))

    def acknowledge(self, value: str) -> None:
        self._acknowledged, self._at = value, time.monotonic()
        self._doubtful = [
            (at, other) for at, other in self._doubtful if at > self._at - LATE_SECONDS and other != value
        ]

    @property
    def possible(self) -> set[str]:
        return {self._acknowledged, *(value for _, value in self._doubtful)}


@dataclass
class Written:
    """A message. Its number is known once it was acknowledged."""

    content: str
    seq: int | None = None


@dataclass
class Talk:
    """A conversation of a learner's own making."""

    id: str
    title: Value
    state: State = "living"
    messages: dict[str, Written] = field(default_factory=dict)
    given: dict[int, str] = field(default_factory=dict)
    """What anybody was ever given under a number: to a writer, to a reader."""


@dataclass
class Course:
    id: str
    capacity: int
    state: State = "living"


@dataclass
class History:
    """What was done to whom, when, and what was answered."""

    began: float
    lines: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.began:8.3f} {text}")

    def about(self, *names: str) -> list[str]:
        """The last lines that name one of these, else the last lines."""
        return ([line for line in self.lines if any(name in line for name in names)] or self.lines)[-TOLD:]


@dataclass(frozen=True)
class Violation:
    what: str
    history: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n      ".join([self.what, *self.history])


@dataclass
class Tally:
    """What is counted over the whole run."""

    began: float = field(default_factory=time.monotonic)
    operations: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    under_fault: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """In a roll: by which releases ran."""
    refused: int = 0
    unanswered: int = 0
    violations: list[Violation] = field(default_factory=list)
    refusals: list[tuple[float, str]] = field(default_factory=list)
    """When a client was answered 503, and which store was not there."""

    def violation(self, what: str, history: list[str]) -> None:
        self.violations.append(Violation(what, tuple(history)))
