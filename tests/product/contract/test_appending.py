"""How ConversationRepository appends, on mongomock-motor and on MongoDB through both drivers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from config import Settings
from models.conversation import Conversation, Message, NewMessage
from repositories.conversation_repo import MESSAGES, ConversationRepository
from tristore.models import new_id, now
from tristore.stores.log_writer import KNOWN_SECONDS
from tristore.stores.mongodb import MongoStore
from tristore.testing.stores import REAL_MONGODB

OWNER = new_id()
on_real_ones = pytest.mark.parametrize("mongo_store", REAL_MONGODB, indirect=True)


@pytest.fixture
def repository(mongo_store: MongoStore) -> ConversationRepository:
    return ConversationRepository(mongo_store)


async def started(repository: ConversationRepository) -> Conversation:
    new = Conversation(id=new_id(), user_id=OWNER, title="t", created_at=now(), updated_at=now())
    return await repository.add(new)


async def say(repository: ConversationRepository, conversation: Conversation, content: str = "x") -> Message:
    appended = await repository.append(conversation.id, OWNER, NewMessage(content=content))
    assert appended
    return appended[0]


@asynccontextmanager
async def counted(mongodb: MongoStore) -> AsyncIterator[Counter[str]]:
    """The commands that the server was sent meanwhile, by their names."""
    counts: Counter[str] = Counter()
    await mongodb.database.command({"profile": 2})
    try:
        yield counts
    finally:
        await mongodb.database.command({"profile": 0})
    profiled = await mongodb.database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}).to_list(None)
    counts.update(f"{one['ns'].partition('.')[2]} {one['op']}" for one in profiled)


def in_order(messages: Sequence[Message]) -> list[int]:
    return [message.seq for message in messages]


@on_real_ones
async def test_a_message_to_a_conversation_that_is_known_is_one_insert(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    conversation = await started(repository)
    await say(repository, conversation)
    async with counted(mongo_store) as counts:
        assert (await say(repository, conversation)).seq == 2
    assert counts == {"messages insert": 1}


@on_real_ones
async def test_what_waits_at_the_same_moment_is_one_command(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    conversations = [await started(repository) for _ in range(30)]
    await asyncio.gather(*(say(repository, conversation) for conversation in conversations))
    async with counted(mongo_store) as counts:
        said = await asyncio.gather(*(say(repository, conversation) for conversation in conversations))
    assert in_order(said) == [2] * 30
    assert counts["messages insert"] <= 2


@on_real_ones
async def test_what_waits_for_one_conversation_is_one_command(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    conversation = await started(repository)
    await say(repository, conversation)
    async with counted(mongo_store) as counts:
        said = await asyncio.gather(*(say(repository, conversation) for _ in range(30)))
    assert sorted(in_order(said)) == list(range(2, 32))
    assert counts["messages insert"] <= 2


async def test_a_number_that_another_process_took_is_not_taken_again(mongo_store: MongoStore) -> None:
    """The processes hear nothing of each other."""
    processes = [ConversationRepository(mongo_store) for _ in range(3)]
    conversation = await started(processes[0])
    said = [await say(processes[i % 3], conversation) for i in range(9)]
    assert in_order(said) == list(range(1, 10))


async def test_an_id_that_waits_twice_is_one_message(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    others = [NewMessage(content="x") for _ in range(3)]
    sent = [NewMessage(id="m-1", content="x"), *others, NewMessage(id="m-1", content="x")] * 2
    answers = await asyncio.gather(*(repository.append(conversation.id, OWNER, new) for new in sent))
    found = [answer for answer in answers if answer]
    same = [(message.seq, is_new) for message, is_new in found if message.id == "m-1"]
    assert len(same) == 4
    assert [is_new for _, is_new in same].count(True) == 1
    assert len({seq for seq, _ in same}) == 1
    assert in_order(await repository.messages(conversation.id, 20)) == [1, 2, 3, 4]


async def test_messages_of_one_round_leave_no_gap_where_one_is_a_repeat(repository: ConversationRepository) -> None:
    conversations = [await started(repository) for _ in range(5)]
    for conversation in conversations:
        await repository.append(conversation.id, OWNER, NewMessage(id="m-0", content="x"))
    for round_ in range(1, 6):
        ids = [f"m-{round_ - 1}", f"m-{round_}"]
        writes = [
            repository.append(conversation.id, OWNER, NewMessage(id=id_, content="x"))
            for conversation in conversations
            for id_ in ids
        ]
        answers = await asyncio.gather(*writes)
        assert [answer and answer[1] for answer in answers] == [False, True] * 5
    for conversation in conversations:
        assert in_order(await repository.messages(conversation.id, 20)) == [1, 2, 3, 4, 5, 6]


async def test_what_another_process_deletes_is_gone_as_soon_as_one_hears_of_it(mongo_store: MongoStore) -> None:
    names: list[str] = []
    here, there = ConversationRepository(mongo_store), ConversationRepository(mongo_store, names.append)
    conversation = await started(here)
    await say(here, conversation)
    await there.delete(conversation.id, for_good=False)
    assert names == [MESSAGES.name(OWNER, conversation.id)]
    here.hear(names)
    assert await here.append(conversation.id, OWNER, NewMessage(content="late")) is None


async def test_what_is_written_while_one_has_not_heard_of_a_deletion_goes_with_the_second_pass(
    mongo_store: MongoStore,
) -> None:
    here, there = ConversationRepository(mongo_store), ConversationRepository(mongo_store)
    conversation = await started(here)
    await say(here, conversation)
    await there.delete(conversation.id, for_good=False)
    await say(here, conversation, "late")
    assert await here.read(conversation.id, OWNER, 20) is None
    await there.delete(conversation.id, for_good=True)
    assert await mongo_store.database.messages.count_documents({}) == 0


def test_what_one_knows_is_over_before_the_second_pass() -> None:
    """Otherwise a message could come to stay in a conversation that is deleted for good."""
    fields = Settings.model_fields
    assert KNOWN_SECONDS + 2 * fields["mongodb_timeout"].default < fields["purge_seconds"].default


async def test_what_one_hears_of_oneself_is_known_already(mongo_store: MongoStore) -> None:
    heard: list[str] = []

    def hear(name: str) -> None:
        heard.append(name)
        process.hear([name])

    process = ConversationRepository(mongo_store, hear)
    conversation = await started(process)
    await say(process, conversation)
    await mongo_store.database.conversations.delete_many({})
    assert (await say(process, conversation)).seq == 2  # it did not look again
    assert len(heard) == 2


async def test_a_conversation_that_was_not_there_yet_is_found_once_it_is(repository: ConversationRepository) -> None:
    """A welcome conversation comes a moment after the registration."""
    new = Conversation(id=new_id(), user_id=OWNER, title="t", created_at=now(), updated_at=now())
    assert await repository.append(new.id, OWNER, NewMessage(content="x")) is None
    await repository.add(new)
    assert (await say(repository, new)).seq == 1


async def test_nobody_else_appends_to_what_the_owner_has_just_used(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    writes = [say(repository, conversation) for _ in range(3)]
    theirs = [repository.append(conversation.id, new_id(), NewMessage(content="x")) for _ in range(3)]
    _, refused = await asyncio.gather(asyncio.gather(*writes), asyncio.gather(*theirs))
    assert refused == [None, None, None]
    assert len(await repository.messages(conversation.id, 20)) == 3


@on_real_ones
async def test_a_message_that_can_never_be_stored_fails_alone(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    conversations = [await started(repository) for _ in range(6)]
    await mongo_store.database.command({"collMod": "messages", "validator": {"content": {"$ne": "bad"}}})
    contents = ["good", "bad", "good", "good", "bad", "good"]
    for one in (conversations, conversations[:1] * 6):  # each in its own, then all in one
        writes = [say(repository, *place) for place in zip(one, contents, strict=True)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds == [Message, OperationFailure, Message, Message, OperationFailure, Message]
    assert in_order(await repository.messages(conversations[0].id, 20)) == [1, 2, 3, 4, 5]


@on_real_ones
async def test_what_no_driver_can_write_fails_alone(repository: ConversationRepository) -> None:
    conversations = [await started(repository) for _ in range(3)]
    for conversation in conversations:
        await say(repository, conversation)
    unreadable: Any = object()
    bad = NewMessage.model_construct(id="m", role="user", content=unreadable, metadata={})
    drafts = [NewMessage(content="x"), bad, NewMessage(content="y")]
    writes = [repository.append(place.id, OWNER, new) for place, new in zip(conversations, drafts, strict=True)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False]


@on_real_ones
async def test_who_looks_for_new_messages_looks_before_they_come(
    repository: ConversationRepository, mongo_store: MongoStore
) -> None:
    """A process that dies after it has inserted one has told nobody, so the mark must be there before."""
    conversation = await started(repository)
    long_ago = {"$set": {"updated_at": now().replace(year=2020)}}
    await mongo_store.database.conversations.update_one({"_id": str(conversation.id)}, long_ago)
    assert await repository.log.recent_numbers([str(conversation.id)], 1) == {str(conversation.id): None}
    await mongo_store.database.command({"collMod": "messages", "validator": {"content": {"$ne": "bad"}}})
    with pytest.raises(OperationFailure):
        await say(repository, conversation, "bad")
    assert await repository.log.recent_numbers([str(conversation.id)], 1) == {str(conversation.id): 0}


@on_real_ones
async def test_conversations_are_in_the_order_of_their_last_messages(mongo_store: MongoStore) -> None:
    """Also where two processes take turns, as soon as each has heard of the other."""
    processes: list[ConversationRepository] = []

    def tell(name: str) -> None:
        for process in processes:
            process.hear([name])

    processes += [ConversationRepository(mongo_store, tell) for _ in range(2)]
    first, second = await started(processes[0]), await started(processes[0])
    for turn, conversation in enumerate((first, second, first, first, second, first, second, second, first)):
        await asyncio.sleep(0.002)  # the times are kept in milliseconds
        await say(processes[turn % 2], conversation)
        listed = await processes[0].listed(OWNER, "recent", 1, None)
        assert [item.id for item in listed.items] == [conversation.id]


async def test_who_gives_up_is_not_written_in_the_next_round(repository: ConversationRepository) -> None:
    conversation = await started(repository)
    first = asyncio.create_task(say(repository, conversation))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(say(repository, conversation, "given up"))
    await asyncio.sleep(0)
    given_up.cancel()
    await first
    assert (await say(repository, conversation)).seq == 2
    assert [message.content for message in await repository.messages(conversation.id, 20)] == ["x", "x"]
