"""Which fault strikes what, and when: a pure function of the seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from tristore.embedded.servers import STORES, Store

Kind = Literal[
    "hang",
    "kill",
    "doom",
    "latency",
    "reset",
    "black hole",
    "late",
    "lost answer",
    "refuses",
    "demoted",
    "failover",
    "switch-over",
    "migrate",
    "roll forward",
    "roll back",
]
AppName = Literal["app 1", "app 2"]
Target = Store | AppName
Card = tuple[Kind, Target]

APPS: tuple[AppName, ...] = get_args(AppName)
AT_STORES: tuple[Kind, ...] = ("hang", "kill", "latency", "reset", "black hole", "late", "lost answer", "refuses")
AT_APPS: tuple[Kind, ...] = ("hang", "kill", "doom")
STORE_CARDS: list[Card] = [*((kind, store) for kind in AT_STORES for store in STORES), ("demoted", "redis")]
APP_CARDS: list[Card] = [(kind, app) for kind in AT_APPS for app in APPS]

OUTLASTS = (3.5, 6.0)
"""Longer than the lab's OUTBOX_MAX_ATTEMPTS last, and shorter than its PURGE_SECONDS: what stalls lands at the end."""
SECONDS: dict[Kind, tuple[float, float]] = {
    "hang": (0.5, 3),
    "kill": (0.2, 2),
    "doom": (1, 6),
    "latency": (1, 5),
    "reset": (0.3, 1.5),
    "black hole": (0.5, 3),
    "late": (0.8, 2.5),
    "lost answer": (0.3, 2),
    "refuses": OUTLASTS,
    "demoted": OUTLASTS,
    "failover": (1.2, 1.8),
    "switch-over": (0.5, 2),
}
TAKES_AWAY: dict[Kind, str] = {
    "hang": "hangs",
    "kill": "is down",
    "black hole": "cannot be reached",
    "refuses": "refuses writes",
    "demoted": "is a replica",
}
"""While it lasts, the store serves nobody: what it does instead."""
APP_HANGS = (0.5, 6.0)
"""Longer than a lease of the outbox (5 s), and shorter than the lab's PURGE_SECONDS."""
ROUND_TRIP: dict[Target, tuple[float, float]] = {
    "postgresql": (0.005, 0.05),
    "redis": (0.005, 0.06),  # above 0.1 s the app gives up: that is a black hole
    "mongodb": (0.01, 0.15),
}
DOOMED_CALL = (1, 400)
BETWEEN = (1.0, 4.0)
SHORTEST = 0.3


@dataclass(frozen=True)
class Fault:
    at: float
    """Seconds after the round has begun."""
    seconds: float
    kind: Kind
    target: Target
    amount: float
    """Of latency: the most seconds there and back that a connection takes. Of doom: at which call to a store the app
    kills itself."""


@dataclass(frozen=True)
class Plan:
    """What a run suffers: the cards to deal from, and the seconds between two faults."""

    cards: Sequence[Card]
    between: tuple[float, float] = BETWEEN
    lasting: tuple[float, float] | None = None
    """Seconds of each fault, if not the ordinary ones of its kind."""


EVERYTHING = Plan([*STORE_CARDS, *APP_CARDS])
NO_KILLED_APPS = Plan([*STORE_CARDS, *(("hang", app) for app in APPS)])


def rounds(seed: int, plan: Plan, count: int, seconds: float) -> Iterator[list[Fault]]:
    """So many rounds of so many seconds, in which all faults have ended. Every card is dealt before any comes again."""
    chance = random.Random(seed)
    dealt: Iterator[Card] = _deal(chance, plan.cards)
    for _ in range(count):
        faults, no_time_for = _round(chance, dealt, plan, seconds)
        dealt = chain(no_time_for, dealt)
        yield faults


def _deal(chance: random.Random, cards: Sequence[Card]) -> Iterator[Card]:
    while True:
        yield from chance.sample(cards, len(cards))


def _round(chance: random.Random, dealt: Iterator[Card], plan: Plan, seconds: float) -> tuple[list[Fault], list[Card]]:
    """Also the cards whose targets were struck until the end."""
    faults: list[Fault] = []
    no_time_for: list[Card] = []
    free_at: dict[Target, float] = {}
    time = chance.uniform(*plan.between)
    while time < seconds - SHORTEST:
        kind, target = next(dealt)
        at = max(time, free_at.get(target, 0) + SHORTEST)
        lasts = min(chance.uniform(*(plan.lasting or _seconds(kind, target))), seconds - at)
        if lasts >= SHORTEST:
            faults.append(Fault(at, lasts, kind, target, _amount(chance, kind, target)))
            free_at[target] = at + lasts
        else:
            no_time_for.append((kind, target))
        time += chance.uniform(*plan.between)
    return faults, no_time_for


def _seconds(kind: Kind, target: Target) -> tuple[float, float]:
    return APP_HANGS if kind == "hang" and target in APPS else SECONDS[kind]


def _amount(chance: random.Random, kind: Kind, target: Target) -> float:
    if kind == "doom":
        return chance.randint(*DOOMED_CALL)
    return chance.uniform(*ROUND_TRIP[target]) if kind == "latency" else 0
