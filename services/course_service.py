"""Courses in PostgreSQL, with what other stores have of them."""

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from database.unit_of_work import UnitOfWork
from models.course import Course, CourseBatch, CourseList, CoursePage, CourseUpdate
from repositories.course_repo import CourseRepository
from tristore.errors import NotFound, found
from tristore.idempotency import IdempotencyKey, IdempotencyRepository
from tristore.outbox.relay import Outbox
from tristore.tags import Tags


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
        idempotency: IdempotencyRepository,
        outbox: Outbox,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._unit_of_work = unit_of_work
        self._courses = courses
        self._idempotency = idempotency
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

    async def create(self, admin: uuid.UUID, new: CourseBatch, key: IdempotencyKey | None = None) -> CourseList:
        """All of them or none; with the same key again, the same answer. Raises InProgress, InvalidInput."""
        async with self._unit_of_work() as uow:
            if answer := await self._idempotency.replay(uow.session, key, new):
                return CourseList.model_validate(answer)
            courses = await self._courses.add_many(uow.session, new.courses)
            for extension in self._extensions:
                courses = [extension.begin(uow, course) for course in courses]
            added = CourseList(items=courses)
            await uow.for_user(admin)
            await self._idempotency.keep(uow.session, key, new, added, admin)
            await uow.commit()
        await self._outbox.deliver(uow.owed)
        return added

    async def update(self, course_id: uuid.UUID, update: CourseUpdate, tags: Tags = None) -> Course:
        """Change what was sent. Raises StaleTag."""
        async with self._unit_of_work() as uow:
            course = found(await self._courses.update(uow.session, course_id, update.sent(), tags))
            await uow.commit()
        [course] = await self._complete([course])
        return course

    async def delete(self, course_id: uuid.UUID, tags: Tags = None) -> None:
        """Also a deleted one: whoever got no answer asks again. Raises StaleTag."""
        async with self._unit_of_work() as uow:
            if not await self._courses.delete(uow.session, course_id, tags):
                raise NotFound
            await uow.commit()

    async def _complete(self, courses: list[Course]) -> list[Course]:
        for extension in self._extensions:
            courses = await extension.complete(courses)
        return courses
