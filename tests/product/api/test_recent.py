"""Conversations as a chat client lists them: what moved last, its last message, and what is unread."""

import random
from typing import Any

import httpx
import pytest

from tests.product.people import make_admin, register
from tests.product.things import post, start_conversation
from tristore.stores.stores import Stores

SEED = 20


@pytest.fixture
async def ana(client: httpx.AsyncClient) -> dict[str, str]:
    return await register(client)


@pytest.fixture
async def conversation(client: httpx.AsyncClient, ana: dict[str, str]) -> str:
    return await start_conversation(client, ana)


async def page(client: httpx.AsyncClient, headers: dict[str, str], **query: Any) -> dict[str, Any]:
    answer = await client.get("/conversations", headers=headers, params={"sort": "recent", **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def top(client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
    item: dict[str, Any] = (await page(client, headers, limit=1))["items"][0]
    return item


async def say(client: httpx.AsyncClient, conversation: str, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{conversation}/messages", headers=headers, json=body)
    assert answer.is_success, answer.text
    message: dict[str, Any] = answer.json()
    return message


async def read(client: httpx.AsyncClient, conversation: str, headers: dict[str, str], seq: int) -> dict[str, Any]:
    answer = await client.post(f"{conversation}/read", headers=headers, json={"seq": seq})
    assert answer.status_code == 200, answer.text
    item: dict[str, Any] = answer.json()
    return item


async def test_what_moved_last_comes_first_with_its_last_message(
    client: httpx.AsyncClient, ana: dict[str, str]
) -> None:
    first, second = [await start_conversation(client, ana) for _ in range(2)]
    await post(client, second, ana, "hi")
    said = await say(client, first, ana, role="assistant", content="é" * 150)
    items = (await page(client, ana))["items"]
    assert [f"/conversations/{item['id']}" for item in items[:2]] == [first, second]
    assert items[0]["last_message"] == {
        "seq": 1,
        "role": "assistant",
        "preview": "é" * 100,
        "timestamp": said["timestamp"],
    }
    assert (items[1]["last_message"]["preview"], items[2]["last_message"]) == ("hi", None)
    by_creation = (await client.get("/conversations", headers=ana)).json()["items"]
    assert by_creation == [items[1], items[0], items[2]]


async def test_each_comes_at_most_once_and_what_moved_is_at_the_top_of_a_new_first_page(
    client: httpx.AsyncClient, ana: dict[str, str]
) -> None:
    """Messages, changes and new conversations come between the pages, by chance, from a seed."""
    chance = random.Random(SEED)
    made = [await start_conversation(client, ana) for _ in range(15)]
    for _ in range(6):
        seen: list[str] = []
        moved: set[str] = set()
        cursor = None
        while True:
            found = await page(client, ana, limit=chance.randint(1, 5), **({"cursor": cursor} if cursor else {}))
            seen += [f"/conversations/{item['id']}" for item in found["items"]]
            if not (cursor := found["next_cursor"]):
                break
            for conversation in chance.sample(made, 2):
                if chance.random() < 0.2:
                    await client.patch(conversation, headers=ana, json={"title": "moved"})
                else:
                    await post(client, conversation, ana, "moved")
                moved.add(conversation)
            if chance.random() < 0.3:
                made.append(await start_conversation(client, ana))
                moved.add(made[-1])
        assert len(seen) == len(set(seen))
        assert set(made) - moved <= set(seen)
        newest = (await page(client, ana, limit=len(moved) or 1))["items"] if moved else []
        assert {f"/conversations/{item['id']}" for item in newest} == moved


async def test_those_of_one_millisecond_are_neither_missed_nor_repeated(
    client: httpx.AsyncClient, ana: dict[str, str], stores: Stores
) -> None:
    made = {(await start_conversation(client, ana)).rpartition("/")[2] for _ in range(6)}
    one = await stores.mongodb.database.conversations.find_one({"user_id": ana["X-User-Id"]})
    assert one
    change = {"$set": {"updated_at": one["updated_at"]}}
    await stores.mongodb.database.conversations.update_many({"user_id": ana["X-User-Id"]}, change)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(4):
        found = await page(client, ana, limit=2, **cursor)
        seen += [item["id"] for item in found["items"]]
        cursor = {"cursor": found["next_cursor"]}
    assert cursor["cursor"] is None
    assert made < set(seen)
    assert len(seen) == 7


async def test_unread_is_what_came_after_what_was_read_or_said(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    await say(client, conversation, ana, content="Hola")
    assert (await top(client, ana))["unread"] == 0
    for content in ("one", "two", "three"):
        await say(client, conversation, ana, role="assistant", content=content)
    assert ((await top(client, ana))["unread"], (await top(client, ana))["read_seq"]) == (3, 1)
    marked = await read(client, conversation, ana, 3)
    assert (marked["unread"], marked["read_seq"]) == (1, 3)
    assert await top(client, ana) == marked
    again = await read(client, conversation, ana, 2)  # an earlier one, which comes late
    assert again == marked
    await say(client, conversation, ana, content="I see")
    await say(client, conversation, ana, role="assistant", content="four")
    assert ((await top(client, ana))["unread"], (await top(client, ana))["read_seq"]) == (1, 5)


async def test_reading_moves_nothing(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    await say(client, conversation, ana, role="assistant", content="one")
    other = await start_conversation(client, ana)
    assert f"/conversations/{(await top(client, ana))['id']}" == other
    assert (await read(client, conversation, ana, 1))["unread"] == 0
    assert f"/conversations/{(await top(client, ana))['id']}" == other


async def test_a_repeated_message_is_not_counted_and_hides_none(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    """A repeat leaves a number behind that no message has (`last_seq` of the conversation)."""
    for role, unread in (("user", 0), ("assistant", 1)):
        for _ in range(3):
            await say(client, conversation, ana, id=role, role=role, content="again")
            assert (await top(client, ana))["unread"] == unread
    refused = await client.post(f"{conversation}/read", headers=ana, json={"seq": 3})
    assert refused.status_code == 422
    assert (await read(client, conversation, ana, 2))["unread"] == 0
    await say(client, conversation, ana, role="assistant", content="news")
    assert (await top(client, ana))["unread"] == 1


async def test_beyond_the_last_message_there_is_nothing_to_read(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    for last in (0, 1):
        answer = await client.post(f"{conversation}/read", headers=ana, json={"seq": last + 1})
        assert answer.status_code == 422
        message = f"must be at most {last}, the number of the last message"
        assert answer.json()["errors"] == [{"field": "seq", "message": message}]
        assert (await read(client, conversation, ana, last))["read_seq"] == last
        await say(client, conversation, ana, role="assistant", content="one")


@pytest.mark.parametrize("bad", [-1, 2**63, 1.5, "1", True, None])
async def test_any_other_number_is_refused_by_name(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, bad: object
) -> None:
    answer = await client.post(f"{conversation}/read", headers=ana, json={"seq": bad})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "seq")


async def test_nobody_else_reads_or_is_told_how_far_it_goes(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    await say(client, conversation, ana, role="assistant", content="one")
    ben = await register(client)
    for seq in (0, 1, 2):
        answer = await client.post(f"{conversation}/read", headers=ben, json={"seq": seq})
        assert answer.status_code == 404
    assert (await top(client, ana))["unread"] == 1


async def test_a_cursor_belongs_to_its_order(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    cursors = {}
    for sort in ("created", "recent"):
        cursors[sort] = (await page(client, ana, sort=sort, limit=1))["next_cursor"]
    for sort, cursor in (("created", cursors["recent"]), ("recent", cursors["created"])):
        answer = await client.get("/conversations", headers=ana, params={"sort": sort, "cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")
    answer = await client.get("/conversations?sort=unread", headers=ana)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "sort")


async def test_what_is_deleted_is_not_listed(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    await post(client, conversation, ana, "hi")
    assert (await client.delete(conversation, headers=ana)).status_code == 204
    assert conversation.rpartition("/")[2] not in {item["id"] for item in (await page(client, ana))["items"]}
    assert (await client.post(f"{conversation}/read", headers=ana, json={"seq": 1})).status_code == 404


async def test_an_export_tells_how_far_was_read(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    for content in ("one", "two"):
        await say(client, conversation, ana, role="assistant", content=content)
    await read(client, conversation, ana, 1)
    exported = (await client.get("/users/me/export", headers=ana)).json()["conversations"]
    assert {kept["id"]: kept["read_seq"] for kept in exported}[conversation.rpartition("/")[2]] == 1


@pytest.mark.parametrize("who", ["learner", "admin"])
async def test_nobody_posts_as_the_system(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, stores: Stores, who: str
) -> None:
    if who == "admin":
        await make_admin(stores, ana["X-User-Id"])
    answer = await client.post(f"{conversation}/messages", headers=ana, json={"content": "hi", "role": "system"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "role", "message": "Input should be 'user' or 'assistant'"}]
