"""ActivityRepository on mongomock-motor and on MongoDB through both drivers: the same bodies."""

import pytest

from models.activity import happened
from repositories.activity_repo import ActivityRepository
from tristore.models import new_id
from tristore.stores.mongodb import MongoStore

ANA, BEN = new_id(), new_id()


@pytest.fixture
def repository(mongo_store: MongoStore) -> ActivityRepository:
    return ActivityRepository(mongo_store)


async def test_is_recorded_once(repository: ActivityRepository) -> None:
    activity = happened(ANA, "registered")
    await repository.add(activity)
    await repository.add(activity)
    assert (await repository.page(ANA, 10, None)).items == [activity]


async def test_pages_are_newest_first_and_of_one_user(repository: ActivityRepository) -> None:
    all_of_it = [happened(ANA, "signed_in") for _ in range(5)]
    for activity in [*all_of_it, happened(BEN, "signed_in")]:
        await repository.add(activity)
    first = await repository.page(ANA, 2, None)
    second = await repository.page(ANA, 10, first.next_cursor)
    assert (len(first.items), second.next_cursor) == (2, None)
    assert first.items + second.items == all_of_it[::-1]


async def test_erasing_leaves_the_others(repository: ActivityRepository, mongo_store: MongoStore) -> None:
    for user in (ANA, BEN):
        await repository.add(happened(user, "signed_in"))
    await repository.erase(ANA, for_good=False)
    left = [len((await repository.page(user, 10, None)).items) for user in (ANA, BEN)]
    assert left == [0, 1]


async def test_deletes_more_than_one_call_can(mongo_store: MongoStore) -> None:
    await mongo_store.database.things.insert_many([{"_id": i, "odd": i % 2 == 1} for i in range(2400)])
    await mongo_store.delete_all("things", {"odd": True})
    assert await mongo_store.database.things.count_documents({}) == 1200
    assert await mongo_store.database.things.count_documents({"odd": True}) == 0
