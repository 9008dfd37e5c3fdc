"""Where messages are sharded, each command on them goes to the shards of its conversations, and to no other."""

from collections.abc import Iterator
from typing import Any

import pytest

from models.conversation import MESSAGE_INDEXES, MESSAGE_SHARD_KEY, NewMessage, started
from repositories.conversation_repo import ConversationRepository
from tristore.idempotency import IdempotencyKey
from tristore.models import new_id
from tristore.stores.mongodb import Document, MongoStore
from tristore.testing.lab import PROJECT
from tristore.testing.stores import REAL_MONGODB

OWNER = new_id()
[KEY] = MESSAGE_SHARD_KEY


async def use_all(repository: ConversationRepository) -> set[str]:
    """Call each method, and return their names."""
    first, second = started(OWNER, "first"), started(OWNER, "second")
    await repository.add(first, IdempotencyKey("scope", "key"), NewMessage(content="x"))
    await repository.add(second)
    await repository.refuse_beyond(10, OWNER, None)
    for id_ in ("m-1", "m-2", "m-1"):  # the last is a repeat
        await repository.append(first.id, OWNER, NewMessage(id=id_, content="x"))
        await repository.append(second.id, OWNER, NewMessage(id=id_, content="x"))
    await repository.get(first.id, OWNER)
    await repository.is_deleted(first.id, OWNER)
    await repository.rename(first.id, OWNER, "other")
    await repository.mark_read(first.id, OWNER, 1)
    await repository.messages(first.id, 10, after=1)
    await repository.messages(first.id, 10, before=2, most_bytes=100)
    await repository.read(first.id, OWNER, 10)
    await repository.page(OWNER, 10, None)
    await repository.listed(OWNER, "recent", 10, None)
    await repository.log.last_number(str(first.id))
    await repository.log.recent_numbers([str(first.id), str(second.id)], 60)
    await repository.log.moved([str(OWNER)], 60)
    await repository.delete(first.id, for_good=False)
    await repository.delete(first.id, for_good=True)
    await repository.erase(OWNER, for_good=False)
    await repository.erase(OWNER, for_good=True)
    await repository.close()
    return set(
        "add refuse_beyond append get is_deleted rename mark_read messages read page listed delete erase close".split()
    )


def filters_on_messages(profiled: Document) -> Iterator[Document]:
    """What a command asks of messages. An insert asks nothing: it names what it writes."""
    command, own = profiled["command"], profiled["ns"].endswith(".messages")
    if own and profiled["op"] not in {"insert", "getmore"}:
        yield command["pipeline"][0]["$match"] if "pipeline" in command else command.get("filter", command.get("q"))
    for stage in command.get("pipeline", ()):
        if stage.get("$lookup", {}).get("from") == "messages":
            yield stage["$lookup"]["pipeline"][0]["$match"]


def is_targeted(query: Any) -> bool:
    """Whether it names values of the shard key, one or several, as a router must see them."""
    if any(is_targeted(part) for part in query.get("$and", ())):
        return True
    wanted = query.get(KEY)
    return isinstance(wanted, str) or (isinstance(wanted, dict) and wanted.keys() == {"$in"})


@pytest.mark.parametrize("mongo_store", REAL_MONGODB, indirect=True)
async def test_each_command_on_messages_names_its_conversations(mongo_store: MongoStore) -> None:
    repository = ConversationRepository(mongo_store)
    await mongo_store.database.command({"profile": 2})
    try:
        used = await use_all(repository)
    finally:
        await mongo_store.database.command({"profile": 0})
    assert used == {name for name, value in vars(ConversationRepository).items() if name[0] != "_" and callable(value)}
    found = await mongo_store.database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}).to_list(None)
    kinds = {one["op"] for one in found if one["ns"].endswith(".messages")}
    assert kinds >= {"query", "command", "insert", "remove"}
    asked = [query for one in found for query in filters_on_messages(one)]
    assert any("_id" in query for query in asked)  # that for a repeat
    assert [query for query in asked if not is_targeted(query)] == []


@pytest.mark.parametrize("mongo_store", REAL_MONGODB, indirect=True)
async def test_a_repeat_and_a_deletion_are_found_by_an_index(mongo_store: MongoStore) -> None:
    """Though the conversation is named besides, which has many more."""
    repository = ConversationRepository(mongo_store)
    conversation = started(OWNER, "t")
    await repository.add(conversation)
    for number in range(50):
        await repository.append(conversation.id, OWNER, NewMessage(id=f"m-{number}", content="x"))
    log, this = {KEY: {"$in": [str(conversation.id)]}}, {"_id": {"$in": [f"{conversation.id}/m-49"]}}
    for query in (log | this, {"$and": [log, this]}):
        plan = await mongo_store.database.command({"explain": {"find": "messages", "filter": query}})
        assert plan["executionStats"]["totalDocsExamined"] == 1


def test_what_is_unique_stays_so_with_the_shard_key_that_the_documents_tell() -> None:
    """A shard sees its own messages only. So an index is unique if it begins with the shard key."""
    unique = [index.document for index in MESSAGE_INDEXES if index.document.get("unique")]
    assert unique
    assert all(next(iter(index["key"])) == KEY for index in unique)
    assert f'{{ {KEY}: "{MESSAGE_SHARD_KEY[KEY]}" }}' in (PROJECT / "docs" / "scaling.md").read_text()
