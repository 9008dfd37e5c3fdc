"""What is left of the seats of each course."""

from database.unit_of_work import UnitOfWork
from models.course import Course
from repositories.seat_repo import SeatRepository
from services.order_effects import OpenSeats
from tristore.errors import StoreUnavailable


class CourseSeats:
    """An extension of CourseService."""

    def __init__(self, seats: SeatRepository) -> None:
        self._seats = seats

    def begin(self, uow: UnitOfWork, course: Course) -> Course:
        uow.effects.append(OpenSeats(course_id=course.id))
        return _with_taken(course, 0)

    async def complete(self, courses: list[Course]) -> list[Course]:
        # Without MongoDB nobody knows what is left; all else is known.
        try:
            taken = await self._seats.taken([course.id for course in courses])
        except StoreUnavailable:
            return courses
        return [_with_taken(course, taken.get(course.id, 0)) for course in courses]


def _with_taken(course: Course, taken: int) -> Course:
    return course.model_copy(update={"seats_left": max(0, course.capacity - taken)})
