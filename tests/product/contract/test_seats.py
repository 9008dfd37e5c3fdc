"""SeatRepository on mongomock-motor and on MongoDB through both drivers: the same bodies. mongomock knows no update by
a pipeline and no `$$NOW`: what changes seats is tested on the real ones only."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from repositories.seat_repo import IN_FLIGHT, SeatRepository
from tests.under_test import Lab, migrated_mongodb
from tristore.models import new_id
from tristore.stores.mongodb import MongoStore
from tristore.testing.stores import REAL_MONGODB


@pytest.fixture
def repository(mongo_store: MongoStore) -> SeatRepository:
    return SeatRepository(mongo_store)


async def test_counts_of_those_that_are_open(repository: SeatRepository, mongo_store: MongoStore) -> None:
    full, empty, unopened = new_id(), new_id(), new_id()
    for course in (full, empty):
        await repository.open(course)
    await mongo_store.database.seats.update_one({"_id": str(full)}, {"$set": {"taken": 7}})
    assert await repository.taken([full, empty, unopened]) == {full: 7, empty: 0}
    assert await repository.taken([]) == {}


async def test_opening_again_takes_nothing_back(repository: SeatRepository, mongo_store: MongoStore) -> None:
    course = new_id()
    await asyncio.gather(*(repository.open(course) for _ in range(10)))
    sold = {"_id": str(course), "taken": 3, "markers": ["m"]}
    await mongo_store.database.seats.replace_one({"_id": str(course)}, sold)
    await repository.open(course)
    assert await mongo_store.database.seats.find({}).to_list(10) == [sold]


LATER = timedelta(minutes=5)
TIMEOUT = timedelta(seconds=0.5)


def now() -> datetime:
    """In MongoDB's precision."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(params=REAL_MONGODB)
async def real(request: pytest.FixtureRequest, lab: Lab) -> AsyncIterator[MongoStore]:
    # Of the lab: one of the tests locks the whole server, which other workers must not share.
    async with migrated_mongodb(request.param, lab.servers) as store:
        store.timeout = TIMEOUT.total_seconds()
        yield store


@pytest.fixture
def seats(real: MongoStore) -> SeatRepository:
    return SeatRepository(real)


@pytest.fixture
async def course(seats: SeatRepository) -> uuid.UUID:
    course = new_id()
    await seats.open(course)
    return course


async def document(real: MongoStore, course: uuid.UUID) -> Any:
    return await real.database.seats.find_one({"_id": str(course)})


async def let_pass(real: MongoStore, course: uuid.UUID) -> None:
    """As if the time of all markers had come."""
    past = {"$set": {"markers.$[].until": now() - LATER}}
    await real.database.seats.update_one({"_id": str(course)}, past)


async def test_a_marker_changes_seats_once_and_never_above_the_capacity(
    real: MongoStore, seats: SeatRepository, course: uuid.UUID
) -> None:
    until = now() + LATER
    assert [await seats.change(course, "a", 3, until, 5) for _ in range(3)] == ["made"] * 3
    assert await seats.change(course, "b", 3, until, 5) == "full"
    assert await seats.change(course, "c", 2, until, 5) == "made"
    assert await seats.change(course, "a", 3, until, 5) == "made"  # also when there is no room for it again
    assert await seats.change(course, "back", -3, until) == "made"
    expected = [{"id": id_, "quantity": n, "until": until} for id_, n in (("a", 3), ("c", 2), ("back", -3))]
    assert await document(real, course) == {"_id": str(course), "taken": 2, "markers": expected}


async def test_of_many_at_once_as_many_are_made_as_there_are_seats(
    real: MongoStore, seats: SeatRepository, course: uuid.UUID
) -> None:
    until = now() + LATER
    real.timeout = 10
    twice = [f"m{number}" for number in range(30)] * 2
    outcomes = await asyncio.gather(*(seats.change(course, marker, 2, until, 15) for marker in twice))
    assert sorted(set(outcomes)) == ["full", "made"]
    assert len({marker for marker, outcome in zip(twice, outcomes, strict=True) if outcome == "made"}) == 7
    assert (await document(real, course))["taken"] == 14


async def test_what_is_not_counted_yet_or_has_too_much_in_flight_is_not_sold_out(
    real: MongoStore, seats: SeatRepository, course: uuid.UUID
) -> None:
    until = now() + LATER
    assert await seats.change(new_id(), "a", 1, until, 5) == "not yet"
    many = [{"id": f"m{number}", "quantity": 0, "until": until} for number in range(IN_FLIGHT)]
    await real.database.seats.update_one({"_id": str(course)}, {"$set": {"markers": many}})
    assert await seats.change(course, "a", 1, until, 5) == "not yet"
    assert await seats.change(course, "m7", 1, until, 5) == "made"
    assert (await document(real, course))["taken"] == 0


async def test_after_its_time_nothing_is_changed(real: MongoStore, seats: SeatRepository, course: uuid.UUID) -> None:
    past = now() - LATER
    assert await seats.change(course, "a", 1, past, 5) == "late"
    assert await seats.change(course, "a", 1, past) == "late"
    assert await seats.change(course, "b", 1, now() + LATER, 5) == "made"
    await let_pass(real, course)
    assert await seats.change(course, "b", 1, past, 5) == "made"  # it was, before
    assert (await document(real, course))["taken"] == 1


async def test_undoing_takes_back_what_a_marker_changed_and_only_that(
    real: MongoStore, seats: SeatRepository, course: uuid.UUID
) -> None:
    for marker in ("a", "b"):
        await seats.change(course, marker, 2, now() + LATER, 5)
    assert not await seats.undo(course, "a", now() + LATER)
    assert not await seats.forget(course, "a", now() + LATER)
    assert (await document(real, course))["taken"] == 4
    past = now() - LATER
    assert [await seats.undo(course, "a", past) for _ in range(2)] == [True, True]
    assert await seats.undo(course, "never made", past)
    after = await document(real, course)
    assert (after["taken"], [marker["id"] for marker in after["markers"]]) == (2, ["b"])
    assert [await seats.forget(course, "b", past) for _ in range(2)] == [True, True]
    assert await document(real, course) == {"_id": str(course), "taken": 2, "markers": []}
    assert not await seats.undo(new_id(), "a", past)


@asynccontextmanager
async def writes_wait(real: MongoStore) -> AsyncIterator[None]:
    await real.probe.admin.command("fsync", lock=True)
    try:
        yield
    finally:
        await real.probe.admin.command("fsyncUnlock")


async def test_a_change_that_waits_inside_mongodb_past_its_time_is_not_lost(
    real: MongoStore, seats: SeatRepository, course: uuid.UUID
) -> None:
    """MongoDB looks at the clock when an operation reaches it, and may make the change much later."""
    real.timeout = 5
    until = datetime.now(UTC) + timedelta(seconds=1)
    markers = [f"m{number}" for number in range(8)]

    async def undone(marker: str) -> None:
        async with asyncio.timeout(20):
            while not await seats.undo(course, marker, until):
                await asyncio.sleep(0.05)

    async with writes_wait(real):
        changes = [asyncio.ensure_future(seats.change(course, marker, 1, until)) for marker in markers]
        await asyncio.sleep(1.1)  # the time passes while they wait
        undoing = [asyncio.ensure_future(undone(marker)) for marker in markers]
        await asyncio.sleep(0.1)
    assert "made" in await asyncio.gather(*changes)
    await asyncio.gather(*undoing)
    assert await document(real, course) == {"_id": str(course), "taken": 0, "markers": []}
