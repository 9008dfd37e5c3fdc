"""Courses in PostgreSQL. A deleted one is kept for what names it, and is invisible here."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from database.postgres import Postgres, connect, read_anywhere
from models.course import Course, CourseIn, CourseRow
from tristore.models import new_id
from tristore.tags import Tags, tag_of_version, update_tagged

LIVING = CourseRow.is_deleted.is_(False)
TAG_OF_ROW = tag_of_version(CourseRow.version)
COURSE = (
    CourseRow.id,
    CourseRow.title,
    CourseRow.language,
    CourseRow.level,
    CourseRow.description,
    CourseRow.price_cents,
    CourseRow.capacity,
    CourseRow.version,
    CourseRow.created_at,
    CourseRow.updated_at,
)


class CourseRepository:
    """Never commits: what writes takes the session of a unit of work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def get(self, course_id: uuid.UUID) -> Course | None:
        query = select(*COURSE).where(CourseRow.id == course_id, LIVING)
        async with connect(self._postgres.reads) as connection:
            row = (await connection.execute(query)).one_or_none()
        return Course(**row._mapping) if row else None

    async def page(self, skip: int, limit: int) -> tuple[list[Course], int]:
        """A page, newest first, and how many there are in all: also when the page is beyond the last one."""
        total = select(func.count().label("total")).where(LIVING).subquery()
        page = select(*COURSE).where(LIVING).order_by(CourseRow.id.desc()).offset(skip).limit(limit).subquery()
        query = select(total.c.total, page).select_from(total.outerjoin(page, true())).order_by(page.c.id.desc())
        rows = (await read_anywhere(self._postgres, lambda connection: connection.execute(query))).all()
        return [Course(**row._mapping) for row in rows if row.id], rows[0].total

    async def add_many(self, session: AsyncSession, courses: Sequence[CourseIn]) -> list[Course]:
        """In one statement. Returns them in the same order."""
        values = [{"id": new_id(), **course.model_dump()} for course in courses]
        rows = (await session.execute(insert(CourseRow).values(values).returning(*COURSE))).all()
        added = {row.id: Course(**row._mapping) for row in rows}
        return [added[value["id"]] for value in values]

    async def update(
        self, session: AsyncSession, course_id: uuid.UUID, changes: dict[str, object], tags: Tags
    ) -> Course | None:
        """Apply changes, named as in CourseUpdate; None for an unknown course. Raises StaleTag."""
        query = update(CourseRow).where(CourseRow.id == course_id, LIVING).returning(*COURSE)
        query = query.values(version=CourseRow.version + 1, updated_at=func.now(), **changes)
        row = await update_tagged(session, query, TAG_OF_ROW, tags)
        return Course(**row._mapping) if row else None

    async def delete(self, session: AsyncSession, course_id: uuid.UUID, tags: Tags) -> bool:
        """Hide it; true also where it is hidden already. False for an unknown course. Raises StaleTag."""
        if await self.update(session, course_id, {"is_deleted": True}, tags):
            return True
        return await session.scalar(select(CourseRow.id).where(CourseRow.id == course_id)) is not None
