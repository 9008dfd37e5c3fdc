"""Courses in PostgreSQL, with what is left of their seats as MongoDB counts them."""

import uuid
from collections.abc import Callable, Sequence

from database.unit_of_work import UnitOfWork
from models.course import Course, CourseIn, CoursePage, CourseUpdate
from repositories.course_repo import CourseRepository
from repositories.seat_repo import SeatRepository
from services.effects import OpenSeats
from tristore.errors import NotFound, StoreUnavailable
from tristore.outbox.relay import Outbox


class CourseService:
    """Every method raises StoreUnavailable when PostgreSQL is down, and NotFound for a deleted course."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        courses: CourseRepository,
        seats: SeatRepository,
        outbox: Outbox,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._courses = courses
        self._seats = seats
        self._outbox = outbox

    async def page(self, skip: int, limit: int) -> CoursePage:
        """Newest first."""
        courses, total = await self._courses.page(skip, limit)
        return CoursePage(items=await self._with_seats(courses), total=total)

    async def read(self, course_id: uuid.UUID) -> Course:
        course = await self._courses.get(course_id)
        if course is None:
            raise NotFound
        [course] = await self._with_seats([course])
        return course

    async def create(self, new: Sequence[CourseIn]) -> list[Course]:
        """All of them or none."""
        async with self._unit_of_work() as uow:
            courses = await self._courses.add_many(uow.session, new)
            uow.effects += [OpenSeats(course_id=course.id) for course in courses]
            await uow.commit()
        await self._outbox.deliver(uow.owed)
        return [course.with_taken(0) for course in courses]

    async def update(self, course_id: uuid.UUID, update: CourseUpdate) -> Course:
        """Change what was sent."""
        async with self._unit_of_work() as uow:
            course = await self._courses.update(uow.session, course_id, update.sent())
            if course is None:
                raise NotFound
            await uow.commit()
        [course] = await self._with_seats([course])
        return course

    async def delete(self, course_id: uuid.UUID) -> None:
        """Also a deleted one: whoever got no answer asks again."""
        async with self._unit_of_work() as uow:
            if not await self._courses.delete(uow.session, course_id):
                raise NotFound
            await uow.commit()

    async def _with_seats(self, courses: Sequence[Course]) -> list[Course]:
        # Without MongoDB nobody knows what is left; all else is known.
        try:
            taken = await self._seats.taken([course.id for course in courses])
        except StoreUnavailable:
            return list(courses)
        return [course.with_taken(taken.get(course.id, 0)) for course in courses]
