"""How a run is divided into rounds, and what the runs of the broken variants concentrate on."""

from dataclasses import dataclass

from tests.chaos.client import Habits
from tests.chaos.guests import guests
from tests.chaos.roll import Roll, rolls
from tests.chaos.schedule import APPS, EVERYTHING, Card, Kind, Plan
from tristore.embedded.servers import STORES

ROUND_SECONDS = 30.0
QUIET_SHARE = 0.2
"""Of the time, for the round in which no app is killed."""
BROKEN_ROUND_SECONDS = 6.0
OFTEN = (0.3, 1.0)
SELDOM = (3.0, 5.0)


ORDINARY = Habits()


@dataclass(frozen=True)
class Course:
    plan: Plan
    rounds: int
    seconds: float
    """Of each round."""
    quiet_seconds: float = 0
    habits: Habits = ORDINARY
    three_nodes: bool = False
    """Whether MongoDB has them, without a proxy."""
    replicated: bool = False
    """Whether each store has its own form of failover, without a proxy."""
    clustered: bool = False
    """Whether Redis is a cluster then."""
    settling: float = 0
    """Seconds at the end of a round in which no fault begins: a failover takes its time."""
    roll: Roll | None = None
    """Whether the faults are the steps of a roll, each of so many seconds as else a round has."""


KILLED_AT_CALLS = Plan([("doom", app) for app in APPS], (1.0, 3.0))
MONGODB_AWAY = Plan([("hang", "mongodb"), ("kill", "mongodb"), ("black hole", "mongodb"), ("reset", "mongodb")], OFTEN)
SLOW_MONGODB: list[Card] = [("latency", "mongodb"), ("late", "mongodb")]
PLANS: dict[str, Plan] = {
    "effects-outside-transaction": KILLED_AT_CALLS,
    "commit-after-response": KILLED_AT_CALLS,
    "relay-without-streams": MONGODB_AWAY,
    "supersede-as-it-was": Plan([("latency", "postgresql")], OFTEN),
    "sign-out-delivers-nothing": Plan([("reset", "mongodb")], SELDOM),
    "del-instead-of-fence": Plan([("late", "redis")], OFTEN),
    "fill-ignores-fence": Plan([("late", "redis")], OFTEN),
    "erasure-once": Plan(SLOW_MONGODB, OFTEN),
    "probe-pings-only": Plan([*(("refuses", store) for store in STORES), ("demoted", "redis")], OFTEN),
    "attempts-counted-for-outages": Plan([("hang", "mongodb"), ("refuses", "mongodb")], OFTEN),
    "w1": Plan([("kill", "mongodb")], (1.5, 2.5)),
    "local-reads": Plan([("failover", "mongodb")], SELDOM),
}
SHORT_LIVED = Habits(life=(3, 8), erasing=1)
HABITS = {
    "w1": Habits(more={"write": 10}),
    "supersede-as-it-was": SHORT_LIVED,
    "sign-out-delivers-nothing": Habits(erasing=0, more={"sign_in": 10, "sign_out": 10, "sign_out_everywhere": 10}),
    "del-instead-of-fence": Habits(life=(3, 8), erasing=0, more={"read_while_changing": 20}),
    "fill-ignores-fence": Habits(life=(3, 8), erasing=0, more={"read_while_changing": 20}),
    "local-reads": Habits(erasing=0, more={"write": 10, "listen": 20}, together=0.8),
    "erasure-once": Habits(life=(10, 20), erasing=1),
}
for guest in guests():
    PLANS |= guest.plans
    HABITS |= guest.habits()
SECONDS = {"supersede-as-it-was": 12.0}
"""Of a round, where the ordinary ones of a broken variant are too short: none is erased at the end of one."""
THREE_NODES = {"local-reads"}
GOES: tuple[Kind, ...] = ("kill", "hang", "switch-over")
FAILOVERS = Plan(
    [*((kind, store) for kind in GOES for store in STORES), ("failover", "mongodb"), *(("kill", app) for app in APPS)],
    (2.0, 4.0),
    lasting=(0.5, 2.0),
)
SETTLING_SECONDS = 15.0


def replicated(minutes: float, *, clustered: bool) -> Course:
    """As `course`, on stores that fail over."""
    seconds = minutes * 60
    number = max(1, round(seconds / ROUND_SECONDS))
    return Course(FAILOVERS, number, seconds / number, replicated=True, clustered=clustered, settling=SETTLING_SECONDS)


def rolled(minutes: float, roll: Roll) -> Course:
    """As `course`, with nothing but the steps of a roll."""
    steps = rolls(0, 0)
    return Course(Plan([]), len(steps), minutes * 60 / sum(map(len, steps)), roll=roll)


def course(minutes: float, variant: str) -> Course:
    """Of about so many minutes under load."""
    seconds = minutes * 60
    if variant:
        lasts = SECONDS.get(variant, BROKEN_ROUND_SECONDS)
        habits = HABITS.get(variant, ORDINARY)
        rounds = max(1, round(seconds / lasts))
        return Course(PLANS[variant], rounds, lasts, habits=habits, three_nodes=variant in THREE_NODES)
    loud = seconds * (1 - QUIET_SHARE)
    number = max(1, round(loud / ROUND_SECONDS))
    return Course(EVERYTHING, number, loud / number, seconds * QUIET_SHARE)
