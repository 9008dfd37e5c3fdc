"""Documents that remember the key which has made them, on mongomock-motor and on MongoDB through both drivers."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from pymongo.write_concern import WriteConcern

from tests.under_test import migrated_mongodb
from tristore.errors import Conflict, InProgress
from tristore.idempotency import IdempotencyKey, KeyUsed
from tristore.models import new_id
from tristore.stores.keyed_documents import FORGET_BODY, KEY_INDEXES, insert_keyed, retire
from tristore.stores.mongodb import Document, MongoStore
from tristore.testing.stores import REAL_MONGODB, Servers


class Body(BaseModel):
    text: str = "t"


@pytest.fixture
async def store(mongo_store: MongoStore) -> MongoStore:
    await mongo_store.database.things.create_indexes(KEY_INDEXES)
    return mongo_store


def thing() -> Document:
    return {"_id": str(new_id()), "text": "t"}


async def insert(store: MongoStore, key: IdempotencyKey | None, body: BaseModel | None = None) -> Document:
    return await insert_keyed(store, "things", thing(), key, body or Body())


async def test_without_a_key_each_is_inserted(store: MongoStore) -> None:
    assert await insert(store, None) != await insert(store, None)
    same = thing()
    for _ in range(2):
        assert await insert_keyed(store, "things", same) == same
    assert await store.database.things.count_documents({}) == 3


async def test_the_same_key_and_body_find_what_was_inserted_as_it_is_by_now(store: MongoStore) -> None:
    replays: list[bool] = []
    key = IdempotencyKey("of ana", "k", lambda: replays.append(True))
    first = await insert(store, key)
    assert replays == []
    await store.database.things.update_one({"_id": first["_id"]}, {"$set": {"text": "u"}})
    second = await insert(store, key)
    assert (second["_id"], second["text"], replays) == (first["_id"], "u", [True])
    with pytest.raises(KeyUsed):
        await insert(store, key, Body(text="other"))
    assert (await insert(store, IdempotencyKey("of ben", "k")))["_id"] != first["_id"]


async def test_of_many_at_once_one_is_inserted(store: MongoStore) -> None:
    key = IdempotencyKey("of ana", "k")
    answers = await asyncio.gather(*(insert(store, key) for _ in range(20)), return_exceptions=True)
    found = {answer["_id"] for answer in answers if not isinstance(answer, BaseException)}
    assert len(found) == 1
    assert {type(answer) for answer in answers} <= {dict, InProgress}
    assert await store.database.things.count_documents({}) == 1


async def test_what_is_deleted_leaves_its_key_and_nothing_else_does(store: MongoStore) -> None:
    key = IdempotencyKey("of ana", "k")
    first, other = await insert(store, key), await insert(store, IdempotencyKey("of ana", "l"))
    await insert(store, None)
    hidden = {"$set": {"text": ""}, **FORGET_BODY}
    await store.database.things.update_many({"_id": {"$ne": other["_id"]}}, hidden)
    for _ in range(2):
        await retire(store, "things", {"_id": {"$ne": other["_id"]}})
    left: list[Any] = await store.database.things.find({}).sort("_id", 1).to_list(10)
    assert [document["_id"] for document in left] == [first["_id"], other["_id"]]
    assert left[0].keys() == {"_id", "text", "idempotency_key", "key_retired_at"}
    assert "key_retired_at" not in left[1]
    with pytest.raises(Conflict, match="deleted"):
        await insert(store, key)


@pytest.mark.parametrize("driver", REAL_MONGODB)
async def test_what_the_majority_does_not_have_yet_is_in_progress(servers: Servers, driver: str) -> None:
    """The insert of another process that is under way. On a single member only a snapshot of before shows that."""
    async with migrated_mongodb(driver, servers) as store:
        await store.database.things.create_indexes(KEY_INDEXES)
        key = IdempotencyKey("of ana", "k")
        await insert(store, key)
        elsewhere = store.database.with_options(write_concern=WriteConcern(w=1))
        store.majority = elsewhere.client["another-database"]  # the majority has nothing of it
        with pytest.raises(InProgress):
            await insert(store, key)


async def test_mongodb_forgets_a_retired_key_after_a_day(store: MongoStore) -> None:
    indexes = await store.database.things.index_information()
    assert indexes["retired_keys"]["expireAfterSeconds"] == 24 * 3600
    assert dict(indexes["retired_keys"]["key"]) == {"key_retired_at": 1}
