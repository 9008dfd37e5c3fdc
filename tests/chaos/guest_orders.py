"""Orders in the lab: their operations, their checks, and their broken variants."""

from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping
from typing import ClassVar

from config import Settings
from tests.chaos.buyer import Bought, Buyer
from tests.chaos.checks import of
from tests.chaos.client import Client, Habits
from tests.chaos.guests import Found, Guest, Operation
from tests.chaos.learner import Learner
from tests.chaos.memory import Violation
from tests.chaos.order_checks import OrderChecks, OrderRows, take
from tests.chaos.order_variants import GivesBackEarly, StepRepeated, UndoesEarly
from tests.chaos.schedule import Card, Plan
from tests.chaos.snapshot import Snapshot

OFTEN = (0.3, 1.0)
AWAY_OR_SLOW: list[Card] = [
    ("latency", "mongodb"),
    ("late", "mongodb"),
    ("reset", "mongodb"),
    ("black hole", "mongodb"),
]


class Orders(Guest):
    variants: ClassVar = {
        "saga-step-not-idempotent": {"SeatRepository": StepRepeated},
        "saga-undone-early": {"Sagas": UndoesEarly, "SeatRepository": GivesBackEarly},
    }
    plans: ClassVar = {
        "saga-step-not-idempotent": Plan(AWAY_OR_SLOW, OFTEN),
        "saga-undone-early": Plan([("late", "mongodb")], OFTEN, lasting=(2.2, 2.7)),
    }
    in_gate: ClassVar = ["saga-step-not-idempotent"]
    settings: ClassVar = {"ORDER_DEADLINE": "3"}
    _rows: OrderRows

    def __init__(self) -> None:
        self._bought: defaultdict[str, dict[str, Bought]] = defaultdict(dict)

    def habits(self) -> Mapping[str, Habits]:
        return {
            "saga-step-not-idempotent": Habits(more={"order": 10, "cancel_order": 10}),
            "saga-undone-early": Habits(erasing=0, more={"order": 10, "open_course": 40, "close_course": 60}),
        }

    def _orders(self, learner: Learner) -> dict[str, Bought]:
        return self._bought[learner.name]

    def operations(self, client: Client) -> list[tuple[Operation, int]]:
        buyer = Buyer(client, self._orders)
        return [(buyer.order, 12), (buyer.cancel_order, 5)]

    def last_requests(self, client: Client, learner: Learner, token: str) -> Iterator[Awaitable[object]]:
        return Buyer(client, self._orders).last_requests(learner, token)

    async def look(self, settings: Settings) -> None:
        self._rows = await take(settings)

    def of_learner(self, learner: Learner, stores: Snapshot) -> Iterator[Violation]:
        for key, bought in self._orders(learner).items():
            order = self._rows.orders.get(bought.id)
            if bought.id and order is None:
                yield of(learner, f"order {key} was acknowledged and is not there", key)
            elif order and order["status"] != bought.outcome and bought.outcome in {"confirmed", "cancelled"}:
                what = f"order {bought.id} was {bought.outcome} and is {order['status']}: {order['reason']}"
                yield of(learner, what, key, bought.id)

    def of_all(self, learners: list[Learner], stores: Snapshot, found: Found) -> Iterator[Violation]:
        for learner in learners:
            learner.names |= {bought.id for bought in self._orders(learner).values()}
        return OrderChecks(self._rows, found).all()


GUEST = Orders
