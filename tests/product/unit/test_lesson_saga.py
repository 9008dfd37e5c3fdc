"""The code of docs/add-a-saga.md, run as it stands, on the real stores."""

import sys
import uuid
from collections.abc import AsyncIterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.product.documents import STEP
from tristore.models import new_id
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.engine import Sagas
from tristore.saga.repository import SagaRepository
from tristore.stores.stores import Stores
from tristore.testing.lab import PROJECT, until
from tristore.testing.outbox import make_outbox, outbox_repository, pass_leases, query, stores_apart
from tristore.testing.stores import Servers

HOUR = "ana, Monday at 9"


class LessonRepository:
    """What the page expects of an entity of the reader's."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.learner_is_gone = False

    async def hour(self, lesson: uuid.UUID) -> str:
        return HOUR

    async def confirm(self, session: AsyncSession, lesson: uuid.UUID) -> bool:
        await self._set(session, lesson, "confirmed")
        return not self.learner_is_gone

    async def cancel(self, session: AsyncSession, lesson: uuid.UUID, reason: str) -> None:
        await self._set(session, lesson, reason)

    async def _set(self, session: AsyncSession, lesson: uuid.UUID, status: str) -> None:
        await session.execute(
            text("UPDATE lessons SET status = :status WHERE id = :id"), {"id": lesson, "status": status}
        )

    async def status(self, lesson: uuid.UUID) -> str:
        [row] = await query(self._stores, "SELECT status FROM lessons WHERE id = :id", id=lesson)
        return str(row.status)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The classes of the page's two files."""
    lessons: Any = ModuleType("repositories.lesson_repo")
    lessons.LessonRepository = LessonRepository
    monkeypatch.setitem(sys.modules, lessons.__name__, lessons)
    classes: dict[str, Any] = {}
    path = ""
    for step in STEP.finditer((PROJECT / "docs/add-a-saga.md").read_text()):
        if step["path"]:
            path = step["path"]
        elif path:
            module = ModuleType(path.removesuffix(".py").replace("/", "."))
            exec(step["block"], vars(module))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            classes |= vars(module)
            path = ""
    return SimpleNamespace(**classes)


@pytest.fixture
async def stores(servers: Servers) -> AsyncIterator[Stores]:
    async with stores_apart(servers) as stores:
        await query(stores, "CREATE TABLE lessons (id uuid PRIMARY KEY, status text NOT NULL)")
        yield stores


class Scene:
    def __init__(self, stores: Stores, page: SimpleNamespace, seconds: float) -> None:
        self.stores = stores
        self.lessons = LessonRepository(stores)
        self.calendar = page.CalendarRepository(stores.mongodb)
        outbox = outbox_repository(stores)
        self.unit_of_work = partial(PostgresUnitOfWork, stores.postgres, outbox.record)
        saga = page.LessonSaga(lessons=self.lessons, calendar=self.calendar, seconds=seconds)
        self.sagas = Sagas(
            unit_of_work=self.unit_of_work,
            repository=SagaRepository(stores.postgres),
            supersede=outbox.supersede,
            kinds=[saga],
        )
        self.outbox = make_outbox(stores, SimpleNamespace(sagas=self.sagas))

    async def open_hour(self, lesson: uuid.UUID | None = None) -> None:
        taken = {"lesson": str(lesson) if lesson else None}
        await self.stores.mongodb.database.hours.update_one({"_id": HOUR}, {"$set": taken}, upsert=True)

    async def ask_for_a_lesson(self) -> uuid.UUID:
        lesson = new_id()
        async with self.unit_of_work() as uow:
            await uow.session.execute(text("INSERT INTO lessons VALUES (:id, 'pending')"), {"id": lesson})
            await self.sagas.begin(uow, "lesson", lesson)
            await uow.commit()
        await self.outbox.deliver(uow.owed)
        return lesson

    async def booked_for(self) -> str | None:
        hour = await self.stores.mongodb.database.hours.find_one({"_id": HOUR})
        assert hour
        lesson: str | None = hour["lesson"]
        return lesson

    async def is_over(self, lesson: uuid.UUID) -> bool:
        await pass_leases(self.stores)
        [row] = await self.sagas.unfinished(lesson)
        return row.state in {"done", "compensated"}


async def test_a_lesson_gets_its_hour_and_is_confirmed(stores: Stores, page: SimpleNamespace) -> None:
    scene = Scene(stores, page, seconds=30)
    await scene.open_hour()
    lesson = await scene.ask_for_a_lesson()
    assert await scene.lessons.status(lesson) == "confirmed"
    assert await scene.booked_for() == str(lesson)


async def test_an_hour_is_booked_once_however_often_it_is_asked(stores: Stores, page: SimpleNamespace) -> None:
    scene, mine, other = Scene(stores, page, seconds=30), new_id(), new_id()
    await scene.open_hour()
    [later, earlier] = [
        row[0] for row in await query(stores, "SELECT now() + d * interval '1 minute' FROM unnest('{1,-1}'::int[]) d")
    ]
    assert [await scene.calendar.book(HOUR, mine, later) for _ in range(2)] == ["booked", "booked"]
    assert await scene.calendar.book(HOUR, other, later) == "taken"
    assert await scene.calendar.free(HOUR, other, earlier) is True  # it has booked nothing
    assert await scene.calendar.free(HOUR, mine, later) is False
    assert await scene.booked_for() == str(mine)
    assert await scene.calendar.free(HOUR, mine, earlier) is True
    assert await scene.calendar.book(HOUR, mine, earlier) == "late"
    assert await scene.booked_for() is None


async def test_of_two_lessons_in_one_hour_the_second_is_refused(stores: Stores, page: SimpleNamespace) -> None:
    scene, first = Scene(stores, page, seconds=30), new_id()
    await scene.open_hour(first)
    lesson = await scene.ask_for_a_lesson()
    assert await scene.lessons.status(lesson) == "the hour is taken"
    assert await scene.booked_for() == str(first)


async def test_a_lesson_that_cannot_be_confirmed_gives_its_hour_back(stores: Stores, page: SimpleNamespace) -> None:
    scene = Scene(stores, page, seconds=2)
    scene.lessons.learner_is_gone = True
    await scene.open_hour()
    scene.outbox.start()
    try:
        lesson = await scene.ask_for_a_lesson()
        assert await scene.lessons.status(lesson) == "the learner is gone"
        assert await scene.booked_for() == str(lesson)  # until nothing from before the deadline can arrive
        await until(partial(scene.is_over, lesson), 30)
    finally:
        await scene.outbox.close()
    assert await scene.booked_for() is None
