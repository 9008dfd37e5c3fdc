"""Courses as an admin sees them: opened, and closed again."""

from dataclasses import dataclass, field

from tests.chaos.arena import Arena
from tests.chaos.learner import Learner
from tests.chaos.memory import Course, Tally
from tests.chaos.visitor import Visitor

CAPACITIES = (3, 10, 40, 200, 1000)


@dataclass
class Catalogue:
    """Of all clients together."""

    keeper: Learner
    """An admin."""
    courses: dict[str, Course] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return self.keeper.tokens[0]


class Curator(Visitor):
    def __init__(self, arena: Arena, tally: Tally, seed: str, catalogue: Catalogue) -> None:
        super().__init__(arena, tally, seed)
        self.catalogue = catalogue

    async def open_course(self, learner: Learner) -> bool:
        return await self.open_course_of(learner, self.chance.choice(CAPACITIES))

    async def open_course_of(self, learner: Learner, capacity: int) -> bool:
        title, price = f"course {self.word()}", self.chance.randint(0, 20_000)
        body = {"title": title, "price_cents": price, "language": "pt", "level": "A1", "capacity": capacity}
        answer = await self.ask(learner, "POST", "/courses", self.catalogue.token, body)
        if not self.is_done(learner, answer, f"opening {title}"):
            return False
        self.catalogue.courses[answer.body["id"]] = Course(answer.body["id"], capacity)
        return True

    async def close_course(self, learner: Learner) -> bool | None:
        """One of those that were opened during the run."""
        opened = list(self.catalogue.courses.values())[len(CAPACITIES) :]
        living = [course for course in opened if course.state == "living"]
        if not living:
            return await self.open_course(learner)
        course = self.chance.choice(living)
        course.state = "ending"
        answer = await self.ask_until_answered(learner, "DELETE", f"/courses/{course.id}", self.catalogue.token)
        if answer.status not in {204, 404}:  # 404: an earlier attempt got through
            return False
        course.state = "ended"
        return True
