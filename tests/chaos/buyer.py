"""Orders of courses, as a client sees them, and the courses that there are."""

import re
from dataclasses import dataclass, field

from tests.chaos.arena import Arena
from tests.chaos.learner import Learner
from tests.chaos.memory import Bought, Course, Tally
from tests.chaos.visitor import Visitor

CAPACITIES = (3, 10, 40, 200, 1000)
ORDER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Catalogue:
    """Of all clients together."""

    keeper: Learner
    """An admin."""
    courses: dict[str, Course] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return self.keeper.tokens[0]


class Buyer(Visitor):
    def __init__(self, arena: Arena, tally: Tally, seed: str, catalogue: Catalogue) -> None:
        super().__init__(arena, tally, seed)
        self.catalogue = catalogue

    async def order(self, learner: Learner) -> bool | None:
        courses = [course for course in self.catalogue.courses.values() if course.state == "living"]
        bought = Bought(self._chance.choice(courses).id, self._chance.randint(1, 3))
        learner.orders[self._word()] = bought
        return await self._place(learner, bought, next(reversed(learner.orders)))

    async def _place(self, learner: Learner, bought: Bought, key: str) -> bool | None:
        token, body = self._chance.choice(learner.tokens), {"course_id": bought.course, "quantity": bought.quantity}
        answer = await self._ask_until_answered(learner, "POST", "/orders", token, body, key=key)
        if answer.is_success:
            bought.id = answer.body["id"]
            bought.outcome = "confirmed" if answer.status == 201 else "decided later"
            return True
        if answer.status == 409 and (named := ORDER_ID.search(answer.body["detail"])):
            bought.id, bought.outcome = named[0], "cancelled"
            return None
        if answer.status == 404 and self.catalogue.courses[bought.course].state != "living":
            return None
        self._is_done(learner, answer, f"its order {key}")
        return False

    async def cancel_order(self, learner: Learner) -> bool | None:
        confirmed = [bought for bought in learner.orders.values() if bought.outcome == "confirmed"]
        if not confirmed:
            return await self.order(learner)
        bought = self._chance.choice(confirmed)
        bought.outcome = "decided later"
        token = self._chance.choice(learner.tokens)
        tried_before = len(learner.history.lines)
        answer = await self._ask_until_answered(learner, "POST", f"/orders/{bought.id}/cancel", token)
        repeated = len(learner.history.lines) - tried_before > 1
        if answer.is_success or (answer.status == 409 and repeated):  # an earlier attempt got through
            bought.outcome = "cancelled"
            return True
        self._is_done(learner, answer, f"cancelling {bought.id}")
        return False

    async def open_course(self, learner: Learner) -> bool:
        return await self.open_course_of(learner, self._chance.choice(CAPACITIES))

    async def open_course_of(self, learner: Learner, capacity: int) -> bool:
        title, price = f"course {self._word()}", self._chance.randint(0, 20_000)
        body = {"title": title, "price_cents": price, "language": "pt", "level": "A1", "capacity": capacity}
        answer = await self._ask(learner, "POST", "/courses", self.catalogue.token, body)
        if not self._is_done(learner, answer, f"opening {title}"):
            return False
        self.catalogue.courses[answer.body["id"]] = Course(answer.body["id"], capacity)
        return True

    async def close_course(self, learner: Learner) -> bool | None:
        """One of those that were opened during the run."""
        opened = list(self.catalogue.courses.values())[len(CAPACITIES) :]
        living = [course for course in opened if course.state == "living"]
        if not living:
            return await self.open_course(learner)
        course = self._chance.choice(living)
        course.state = "ending"
        answer = await self._ask_until_answered(learner, "DELETE", f"/courses/{course.id}", self.catalogue.token)
        if answer.status not in {204, 404}:  # 404: an earlier attempt got through
            return False
        course.state = "ended"
        return True
