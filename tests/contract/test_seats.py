"""SeatRepository on mongomock-motor and on MongoDB through both drivers: the same bodies."""

import asyncio

import pytest

from database.mongodb import MongoStore
from models.base import new_id
from repositories.seat_repo import SeatRepository


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
