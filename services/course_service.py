"""Courses in PostgreSQL, with what other stores have of them."""

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from database.unit_of_work import UnitOfWork
from models.course import Course, CourseIn, CoursePage, CourseUpdate
from repositories.course_repo import CourseRepository
from tristore.errors import NotFound, found
from tristore.outbox.relay import Outbox


class Extension(Protocol):
    """Adds fields to courses that are kept in another store."""

    def begin(self, uow: UnitOfWork, course: Course) -> Course:
        """Let the transaction that adds a course owe what these fields need. Returns it with them."""

    async def complete(self, courses: list[Course]) -> list[Course]:
        """The courses with these fields; without, while their store is down."""


class CourseService:
    """Every method raises StoreUnavailable when PostgreSQL is down, and NotFound for a deleted course."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        courses: CourseRepository,
        outbox: Outbox,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._unit_of_work = unit_of_work
        self._courses = courses
        self._outbox = outbox
        self._extensions = extensions

    async def page(self, skip: int, limit: int) -> CoursePage:
        """Newest first."""
        courses, total = await self._courses.page(skip, limit)
        return CoursePage(items=await self._complete(courses), total=total)

    async def read(self, course_id: uuid.UUID) -> Course:
        course = found(await self._courses.get(course_id))
        [course] = await self._complete([course])
        return course

    async def create(self, new: Sequence[CourseIn]) -> list[Course]:
        """All of them or none."""
        async with self._unit_of_work() as uow:
            courses = await self._courses.add_many(uow.session, new)
            for extension in self._extensions:
                courses = [extension.begin(uow, course) for course in courses]
            await uow.commit()
        await self._outbox.deliver(uow.owed)
        return courses

    async def update(self, course_id: uuid.UUID, update: CourseUpdate) -> Course:
        """Change what was sent."""
        async with self._unit_of_work() as uow:
            course = found(await self._courses.update(uow.session, course_id, update.sent()))
            await uow.commit()
        [course] = await self._complete([course])
        return course

    async def delete(self, course_id: uuid.UUID) -> None:
        """Also a deleted one: whoever got no answer asks again."""
        async with self._unit_of_work() as uow:
            if not await self._courses.delete(uow.session, course_id):
                raise NotFound
            await uow.commit()

    async def _complete(self, courses: list[Course]) -> list[Course]:
        for extension in self._extensions:
            courses = await extension.complete(courses)
        return courses
