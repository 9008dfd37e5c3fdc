"""Orders of courses, as a client sees them."""

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.chaos.client import Client
from tests.chaos.learner import Learner

ORDER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Bought:
    """An order."""

    course: str
    quantity: int
    id: str = ""
    outcome: Literal["no answer", "confirmed", "cancelled", "decided later"] = "no answer"


class Buyer:
    def __init__(self, client: Client, orders: Callable[[Learner], dict[str, Bought]]) -> None:
        """`orders`: those of a learner, by idempotency key."""
        self._client = client
        self._orders = orders

    async def order(self, learner: Learner) -> bool | None:
        courses = [course for course in self._client.catalogue.courses.values() if course.state == "living"]
        bought = Bought(self._client.chance.choice(courses).id, self._client.chance.randint(1, 3))
        self._orders(learner)[self._client.word()] = bought
        return await self._place(learner, bought, next(reversed(self._orders(learner))))

    async def _place(self, learner: Learner, bought: Bought, key: str) -> bool | None:
        token, body = (
            self._client.chance.choice(learner.tokens),
            {"course_id": bought.course, "quantity": bought.quantity},
        )
        answer = await self._client.ask_until_answered(learner, "POST", "/orders", token, body, key=key)
        if answer.is_success:
            bought.id = answer.body["id"]
            bought.outcome = "confirmed" if answer.status == 201 else "decided later"
            return True
        if answer.status == 409 and (named := ORDER_ID.search(answer.body["detail"])):
            bought.id, bought.outcome = named[0], "cancelled"
            return None
        if answer.status == 404 and self._client.catalogue.courses[bought.course].state != "living":
            return None
        self._client.is_done(learner, answer, f"its order {key}")
        return False

    async def cancel_order(self, learner: Learner) -> bool | None:
        confirmed = [bought for bought in self._orders(learner).values() if bought.outcome == "confirmed"]
        if not confirmed:
            return await self.order(learner)
        bought = self._client.chance.choice(confirmed)
        bought.outcome = "decided later"
        token = self._client.chance.choice(learner.tokens)
        tried_before = len(learner.history.lines)
        answer = await self._client.ask_until_answered(learner, "POST", f"/orders/{bought.id}/cancel", token)
        repeated = len(learner.history.lines) - tried_before > 1
        if answer.is_success or (answer.status == 409 and repeated):  # an earlier attempt got through
            bought.outcome = "cancelled"
            return True
        self._client.is_done(learner, answer, f"cancelling {bought.id}")
        return False

    def last_requests(self, learner: Learner, token: str) -> Iterator[Awaitable[object]]:
        yield self.order_while_erased(learner, token)
        for bought in [bought for bought in self._orders(learner).values() if bought.outcome == "confirmed"][:2]:
            bought.outcome = "decided later"
            yield self._client.ask(learner, "POST", f"/orders/{bought.id}/cancel", token)

    async def order_while_erased(self, learner: Learner, token: str) -> None:
        key, bought = self._client.word(), Bought(self._client.chance.choice(list(self._client.catalogue.courses)), 1)
        self._orders(learner)[key] = bought
        body = {"course_id": bought.course, "quantity": bought.quantity}
        answer = await self._client.ask(learner, "POST", "/orders", token, body, key=key)
        if answer.is_success:
            bought.id, bought.outcome = answer.body["id"], "decided later"
