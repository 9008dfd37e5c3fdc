"""ConversationRepository on mongomock-motor and on MongoDB through both drivers: the same bodies."""

import asyncio
import random
import traceback
import uuid
from datetime import timedelta
from typing import Any, get_args

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from models.conversation import Conversation, MessageDraft, MessageRole, NewConversation, NewMessage
from repositories.conversation_repo import MESSAGES, ConversationRepository
from tests.under_test import Lab, migrated_mongodb
from tristore.errors import Conflict, InvalidInput, StoreUnavailable
from tristore.idempotency import IdempotencyKey
from tristore.models import new_id, now
from tristore.stores.mongodb import MongoStore
from tristore.stores.numbered_log import NumberedLog
from tristore.testing.stores import REAL_MONGODB, Servers

OWNER, STRANGER = new_id(), new_id()


@pytest.fixture
def repository(mongo_store: MongoStore) -> ConversationRepository:
    return ConversationRepository(mongo_store)


async def started(repository: ConversationRepository, title: str = "Bonjour") -> Conversation:
    created = now()
    conversation = Conversation(id=new_id(), user_id=OWNER, title=title, created_at=created, updated_at=created)
    await repository.add(conversation)
    return conversation


async def a_log(store: MongoStore) -> NumberedLog:
    """The log "c" of the owner "o" is in it."""
    await store.database.conversations.insert_one({"_id": "c", "user_id": "o", "updated_at": now()})
    return NumberedLog(store, MESSAGES)


async def test_returns_what_was_added(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    assert await repository.get(conversation.id, OWNER) == conversation


async def test_adding_twice_is_adding_once(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    await repository.add(conversation.model_copy(update={"title": "late"}))
    assert [kept.title for kept in (await repository.page(OWNER, 10, None)).items] == [conversation.title]


async def test_nobody_else_sees_or_appends_to_a_conversation(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    assert await repository.get(conversation.id, STRANGER) is None
    assert await repository.append(conversation.id, STRANGER, NewMessage(content="hi")) is None
    assert await repository.messages(conversation.id, 10) == []


async def test_pages_are_newest_first_and_do_not_overlap(repository: ConversationRepository) -> None:
    all_of_them = [await started(repository, f"t{i}") for i in range(5)]
    first = await repository.page(OWNER, 2, None)
    second = await repository.page(OWNER, 10, first.next_cursor)
    assert (len(first.items), second.next_cursor) == (2, None)
    assert [c.id for c in first.items + second.items] == [c.id for c in reversed(all_of_them)]


async def test_numbers_messages_without_gaps_under_concurrent_writers(mongo_store: MongoStore) -> None:
    processes = [ConversationRepository(mongo_store), ConversationRepository(mongo_store)]
    conversation = await started(processes[0])
    contents = [f"m{i}" for i in range(40)]
    writes = [
        processes[i % 2].append(conversation.id, OWNER, NewMessage(content=content))
        for i, content in enumerate(contents)
    ]
    answers = [answer for answer in await asyncio.gather(*writes) if answer]
    assert sorted(message.seq for message, _ in answers) == list(range(1, 41))
    stored = await processes[0].messages(conversation.id, 100)
    assert [message.seq for message in stored] == list(range(1, 41))
    assert sorted(message.content for message in stored) == sorted(contents)


async def test_each_message_carries_the_number_of_the_users_last_one(mongo_store: MongoStore) -> None:
    """Also when two processes race for the numbers, and some ids come again. What is unread is told by it."""
    processes = [ConversationRepository(mongo_store), ConversationRepository(mongo_store)]
    conversation = await started(processes[0])
    roles: list[MessageRole] = [random.Random(i).choice(get_args(MessageRole)) for i in range(60)]
    writes = [
        processes[i % 2].append(conversation.id, OWNER, MessageDraft(id=f"m-{i % 50}", role=role, content="x"))
        for i, role in enumerate(roles)
    ]
    await asyncio.gather(*writes, return_exceptions=True)  # an id that comes again with another role is refused
    stored = await mongo_store.database.messages.find().sort("seq", 1).to_list(None)
    assert [message["seq"] for message in stored] == list(range(1, 51))
    last = 0
    for message in stored:
        last = message["seq"] if message["role"] == "user" else last
        assert message["own_seq"] == last
    assert last > 0


@pytest.mark.parametrize("mongo_store", REAL_MONGODB, indirect=True)
async def test_lists_read_one_entry_of_an_index_for_each_item(mongo_store: MongoStore) -> None:
    """mongomock neither explains nor cuts text."""
    repository = ConversationRepository(mongo_store)
    for _ in range(20):
        conversation = await started(repository)
        for _ in range(20):
            await repository.append(conversation.id, OWNER, NewMessage(content="x"))
    await mongo_store.database.command({"profile": 2})
    try:
        first = await repository.listed(OWNER, "recent", 5, None)
        second = await repository.listed(OWNER, "recent", 5, first.next_cursor)
        others = {"_id": {"$nin": [str(item.id) for item in first.items[:2]]}}
        long_ago = {"$set": {"updated_at": now() - timedelta(minutes=1)}}
        await mongo_store.database.conversations.update_many(others, long_ago)
        moved = await repository.log.moved([str(OWNER), str(STRANGER)], 10)
    finally:
        await mongo_store.database.command({"profile": 0})
    assert len({item.id for item in first.items + second.items}) == 10
    assert sorted(moved) == sorted((str(OWNER), str(item.id), 20) for item in first.items[:2])
    profiled = await mongo_store.database["system.profile"].find({"nreturned": {"$exists": True}}).to_list(None)
    read = [(one["planSummary"], one["docsExamined"], one["keysExamined"]) for one in profiled]
    recent = "IXSCAN { user_id: 1, updated_at: -1, _id: -1 }"
    last = "DISTINCT_SCAN { conversation_id: 1, seq: 1 }"
    assert [plan for plan, _, _ in read] == [recent, last, recent, last, recent, last]
    assert max(documents for _, documents, _ in read) <= 7
    assert max(keys for _, _, keys in read) <= 7


async def test_the_same_id_and_body_is_the_same_message(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    new = NewMessage(id="m-1", content="hello", metadata={"mood": "good", "n": 1})
    first, repeated = [await repository.append(conversation.id, OWNER, new) for _ in range(2)]
    assert first
    assert repeated == (first[0], False)
    assert len(await repository.messages(conversation.id, 10)) == 1


async def test_the_same_id_with_another_body_is_refused(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    await repository.append(conversation.id, OWNER, NewMessage(id="m-1", content="hello"))
    with pytest.raises(InvalidInput) as caught:
        await repository.append(conversation.id, OWNER, NewMessage(id="m-1", content="other"))
    assert caught.value.field == "id"


async def test_an_id_is_unique_in_its_conversation_only(repository: ConversationRepository) -> None:
    answers = [
        await repository.append((await started(repository)).id, OWNER, NewMessage(id="m-1", content=text))
        for text in ("a", "b")
    ]
    assert [answer and answer[1] for answer in answers] == [True, True]


async def test_reads_messages_forward_and_backward(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    for i in range(1, 8):
        await repository.append(conversation.id, OWNER, NewMessage(content=str(i)))

    async def numbers(limit: int, **where: int) -> list[int]:
        return [message.seq for message in await repository.messages(conversation.id, limit, **where)]

    assert await numbers(3) == [5, 6, 7]
    assert await numbers(3, before=5) == [2, 3, 4]
    assert await numbers(3, after=2) == [3, 4, 5]
    assert await numbers(3, after=7) == []


async def test_reads_no_more_messages_once_they_have_enough_bytes(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    for _ in range(10):
        await repository.append(conversation.id, OWNER, NewMessage(content="x" * 1000))
    for most_bytes, expected in ((1, 1), (2500, 2), (10**6, 10)):
        found = await repository.messages(conversation.id, 50, after=0, most_bytes=most_bytes)
        assert [message.seq for message in found] == list(range(1, expected + 1))
    found = await repository.messages(conversation.id, 3, after=2, most_bytes=10**6)
    assert [message.seq for message in found] == [3, 4, 5]


async def test_answers_unavailable_before_its_migration(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    await mongo_store.database.schema_migrations.delete_many({})
    with pytest.raises(StoreUnavailable, match="not migrated"):
        await repository.get(uuid.uuid4(), OWNER)


@pytest.mark.parametrize("driver", REAL_MONGODB)
async def test_a_server_that_answers_and_refuses_writes_is_unavailable(lab: Lab, driver: str) -> None:
    # On the lab's server: the block is for all its databases, and other workers share the ordinary one.
    async with migrated_mongodb(driver, lab.servers) as store:
        log = await a_log(store)
        block = {"setUserWriteBlockMode": 1, "global": True}
        async with AsyncMongoClient[dict[str, Any]](lab.servers["mongodb"].administrator_dsn) as administrator:
            await administrator.admin.command(block)
            try:
                with pytest.raises(StoreUnavailable) as caught:
                    await log.append("c", "o", "m", {"content": "hi"})
                assert (caught.value.reason, caught.value.cause) == ("refuses writes", "371")
            finally:
                await administrator.admin.command({**block, "global": False})
        appended = await log.append("c", "o", "m", {"content": "hi"})
        assert appended
        assert appended[0]["seq"] == 1


@pytest.mark.parametrize("mongo_store", REAL_MONGODB, indirect=True)
async def test_a_message_that_can_never_be_stored_is_not_tried_for_ever_or_told_to_the_log(
    mongo_store: MongoStore,
) -> None:
    content = str(new_id())
    validator = {"content": {"$ne": content}}
    await mongo_store.database.command({"collMod": "messages", "validator": validator})
    with pytest.raises(OperationFailure) as caught:
        await (await a_log(mongo_store)).append("c", "o", "m", {"content": content})
    assert caught.value.code == 121
    assert content not in "".join(traceback.format_exception(caught.value))


async def test_a_batch_wakes_its_conversation_once_when_it_can_be_read(mongo_store: MongoStore) -> None:
    woken: list[str] = []
    repository = ConversationRepository(mongo_store, woken.append)
    conversation, other = await started(repository), await started(repository)
    writes = [repository.append(conversation.id, OWNER, NewMessage(id=f"m-{i}", content="x")) for i in range(10)]
    await asyncio.gather(*writes)
    assert set(woken) == {f"conversation:{OWNER}:{conversation.id}"}
    assert len(woken) < len(writes)  # the first comes alone, those that come meanwhile wait for it together
    woken.clear()
    numbers = await repository.log.recent_numbers([str(conversation.id), str(other.id), str(new_id())], 60)
    assert numbers == {str(conversation.id): 10, str(other.id): 0}
    await repository.append(conversation.id, OWNER, NewMessage(id="m-1", content="x"))
    assert not woken  # a repeat is no news


async def test_appending_moves_the_time_of_the_last_change(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    await asyncio.sleep(0.005)
    await repository.append(conversation.id, OWNER, NewMessage(content="x"))
    changed = await repository.get(conversation.id, OWNER)
    assert changed
    assert changed.updated_at > conversation.updated_at


async def test_renaming_keeps_the_rest_and_is_the_owners(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    assert await repository.rename(conversation.id, STRANGER, "theirs") is None
    renamed = await repository.rename(conversation.id, OWNER, "Bonsoir")
    assert renamed
    assert renamed.updated_at >= conversation.updated_at
    assert renamed.model_copy(update={"title": "Bonjour", "updated_at": conversation.updated_at}) == conversation


async def test_a_deleted_conversation_is_gone_for_its_owner(repository: ConversationRepository) -> None:
    conversation, other = await started(repository), await started(repository)
    for kept in (conversation, other):
        await repository.append(kept.id, OWNER, NewMessage(content="hi"))
    await repository.delete(conversation.id, for_good=False)
    assert await repository.get(conversation.id, OWNER) is None
    assert await repository.rename(conversation.id, OWNER, "back") is None
    assert await repository.append(conversation.id, OWNER, NewMessage(content="hi")) is None
    assert [kept.id for kept in (await repository.page(OWNER, 10, None)).items] == [other.id]
    assert await repository.messages(conversation.id, 10) == []
    assert len(await repository.messages(other.id, 10)) == 1


async def test_the_second_pass_leaves_nothing(repository: ConversationRepository, mongo_store: MongoStore) -> None:
    conversation, other = await started(repository), await started(repository)
    await repository.delete(conversation.id, for_good=False)
    late = {"_id": "late", "conversation_id": str(conversation.id), "seq": 1}
    await mongo_store.database.messages.insert_one(late)
    await repository.delete(conversation.id, for_good=True)
    await repository.delete(conversation.id, for_good=True)
    assert await mongo_store.database.messages.count_documents({}) == 0
    left = await mongo_store.database.conversations.find({}).to_list(10)
    assert [document["_id"] for document in left] == [str(other.id)]


async def test_a_key_outlives_its_conversation_and_goes_with_its_user(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    key, body, created = IdempotencyKey("of the owner", "k"), NewConversation(title="secret"), now()
    new = Conversation(id=new_id(), user_id=OWNER, title="secret", created_at=created, updated_at=created)
    assert await repository.add(new, key, body) == new
    await repository.append(new.id, OWNER, NewMessage(content="secret"))
    for for_good in (False, True):
        await repository.delete(new.id, for_good=for_good)
        with pytest.raises(Conflict):
            await repository.add(new.model_copy(update={"id": new_id()}), key, body)
        assert await repository.get(new.id, OWNER) is None
        assert await repository.is_deleted(new.id, OWNER)
        assert (await repository.page(OWNER, 10, None)).items == []
    left = await mongo_store.database.conversations.find({}).to_list(10)
    assert [(document["title"], document.get("fingerprint")) for document in left] == [("", None)]
    assert await mongo_store.database.messages.count_documents({}) == 0
    await repository.erase(OWNER, for_good=True)
    assert await mongo_store.database.conversations.count_documents({}) == 0


async def test_erasing_a_user_takes_all_conversations_and_no_other(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    for _ in range(3):
        mine = await started(repository, "secret")
        await repository.append(mine.id, OWNER, NewMessage(content="secret"))
    theirs = Conversation(id=new_id(), user_id=STRANGER, title="t", created_at=now(), updated_at=now())
    await repository.add(theirs)
    await repository.append(theirs.id, STRANGER, NewMessage(content="kept"))
    await repository.erase(OWNER, for_good=False)
    assert (await repository.page(OWNER, 10, None)).items == []
    assert await mongo_store.database.conversations.count_documents({"title": "secret"}) == 0
    await repository.erase(OWNER, for_good=True)
    assert await mongo_store.database.conversations.count_documents({}) == 1
    assert [message.content for message in await repository.messages(theirs.id, 10)] == ["kept"]


@pytest.mark.parametrize("driver", REAL_MONGODB)
async def test_what_somebody_is_shown_is_what_the_majority_has(servers: Servers, driver: str) -> None:
    """What one member alone has may be rolled back. The number of the next message is asked of that member: the unique
    index decides."""
    async with migrated_mongodb(driver, servers) as store:
        repository = ConversationRepository(store)
        conversation = await started(repository)
        await store.database.command({"profile": 2})
        try:
            for _ in range(2):  # the second is a repeat
                await repository.append(conversation.id, OWNER, NewMessage(id="m-1", content="hello"))
            await repository.messages(conversation.id, 20, after=0)
            await repository.log.recent_numbers({str(conversation.id)}, 60)
            await repository.read(conversation.id, OWNER, 20)
            await repository.page(OWNER, 10, None)
            await repository.listed(OWNER, "recent", 10, None)
            await repository.log.newest(str(OWNER), 10)
            await repository.log.moved([str(OWNER)], 60)
            await repository.get(conversation.id, OWNER)
            await repository.add(conversation)
        finally:
            await store.database.command({"profile": 0})
        found = await store.database["system.profile"].find({"op": "query"}).sort("ts", 1).to_list(100)
        aggregated = await store.database["system.profile"].find({"command.aggregate": {"$exists": True}}).to_list(100)
        local = {command["aggregate"] for command in _local(aggregated) if "own_seq" in str(command["pipeline"])}
        assert local == {"messages"}
        assert len(_local(aggregated)) == 1
        asked = {(command["find"], *command["filter"]) for command in _local(found)}
        assert asked == {("conversations", "_id", "deleted")}
        assert len(found) + len(aggregated) > 10


def _local(profiled: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Commands that ask for what one member alone may have."""
    commands = [document["command"] for document in profiled]
    return [command for command in commands if command.get("readConcern", {}).get("level") != "majority"]
