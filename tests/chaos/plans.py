"""How a run is divided into rounds, and what the runs of the broken variants concentrate on."""

from dataclasses import dataclass

from tests.chaos.client import Habits
from tests.chaos.schedule import APPS, EVERYTHING, Card, Plan

ROUND_SECONDS = 30.0
QUIET_SHARE = 0.2
"""Of the time, for the round in which no app is killed."""
BROKEN_ROUND_SECONDS = 6.0
OFTEN = (0.3, 1.0)


ORDINARY = Habits()


@dataclass(frozen=True)
class Course:
    plan: Plan
    rounds: int
    seconds: float
    """Of each round."""
    quiet_seconds: float = 0
    habits: Habits = ORDINARY


KILLED_AT_CALLS = Plan([("doom", app) for app in APPS], (1.0, 3.0))
MONGODB_AWAY = Plan([("hang", "mongodb"), ("kill", "mongodb"), ("black hole", "mongodb"), ("reset", "mongodb")], OFTEN)
SLOW_MONGODB: list[Card] = [("latency", "mongodb"), ("late", "mongodb")]
PLANS: dict[str, Plan] = {
    "effects-outside-transaction": KILLED_AT_CALLS,
    "commit-after-response": KILLED_AT_CALLS,
    "relay-without-streams": MONGODB_AWAY,
    "del-instead-of-fence": Plan([("late", "redis")], OFTEN),
    "erasure-once": Plan(SLOW_MONGODB, OFTEN),
    "saga-step-not-idempotent": Plan([*SLOW_MONGODB, ("reset", "mongodb"), ("black hole", "mongodb")], OFTEN),
    "w1": Plan([("kill", "mongodb")], (1.5, 2.5)),
}
HABITS = {
    "w1": Habits(more={"write": 10}),
    "del-instead-of-fence": Habits(life=(3, 8), erasing=0, more={"read_while_changing": 20}),
    "saga-step-not-idempotent": Habits(more={"order": 10, "cancel_order": 10}),
    "erasure-once": Habits(life=(10, 20), erasing=1),
}


def course(minutes: float, variant: str) -> Course:
    """Of about so many minutes under load."""
    seconds = minutes * 60
    if variant:
        rounds = max(1, round(seconds / BROKEN_ROUND_SECONDS))
        return Course(PLANS[variant], rounds, BROKEN_ROUND_SECONDS, habits=HABITS.get(variant, ORDINARY))
    loud = seconds * (1 - QUIET_SHARE)
    number = max(1, round(loud / ROUND_SECONDS))
    return Course(EVERYTHING, number, loud / number, seconds * QUIET_SHARE)
