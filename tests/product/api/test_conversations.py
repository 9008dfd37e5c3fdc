"""Conversations and messages through the API."""

import asyncio
import uuid

import httpx
import pytest

from tests.product.people import register


@pytest.fixture
async def ana(client: httpx.AsyncClient) -> dict[str, str]:
    return await register(client)


@pytest.fixture
async def conversation(client: httpx.AsyncClient, ana: dict[str, str]) -> str:
    answer = await client.post("/conversations", headers=ana, json={"title": "Au marché"})
    assert answer.status_code == 201
    return f"/conversations/{answer.json()['id']}"


async def test_the_welcome_conversation_is_in_the_list(client: httpx.AsyncClient, ana: dict[str, str]) -> None:
    page = (await client.get("/conversations", headers=ana)).json()
    assert [item["title"] for item in page["items"]] == ["Welcome to ChatLingo"]
    assert page["next_cursor"] is None


async def test_pages_through_all_conversations(client: httpx.AsyncClient, ana: dict[str, str]) -> None:
    made = [(await client.post("/conversations", headers=ana, json={"title": f"t{i}"})).json()["id"] for i in range(4)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/conversations", headers=ana, params={"limit": 2, **cursor})).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen[:4] == made[::-1]
    assert len(seen) == len(set(seen)) == 5


async def test_appends_and_reads_back(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    body = {"role": "user", "content": "Combien ça coûte ?", "metadata": {"tokens": 7, "tags": ["prix", None]}}
    answer = await client.post(f"{conversation}/messages", headers=ana, json=body)
    assert answer.status_code == 201
    message = answer.json()
    assert body.items() <= message.items()
    assert message["seq"] == 1
    assert (await client.get(conversation, headers=ana)).json()["messages"] == [message]
    assert (await client.get(f"{conversation}/messages", headers=ana)).json()["items"] == [message]


async def test_a_repeated_post_is_the_same_message(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    body = {"id": str(uuid.uuid4()), "content": "Une baguette"}
    answers = await asyncio.gather(*(client.post(f"{conversation}/messages", headers=ana, json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.text for answer in answers}) == 1
    other = await client.post(f"{conversation}/messages", headers=ana, json={**body, "content": "Deux"})
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "id")


async def test_pages_through_messages_both_ways(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    for i in range(7):
        await client.post(f"{conversation}/messages", headers=ana, json={"content": f"m{i}"})

    async def walk(start: str, where: dict[str, int]) -> list[list[int]]:
        pages = []
        while True:
            page = (await client.get(f"{conversation}/messages", headers=ana, params={"limit": 3, **where})).json()
            pages.append([item["seq"] for item in page["items"]])
            if page["next"] is None:
                return pages
            where = {start: page["next"]}

    assert await walk("after_seq", {"after_seq": 0}) == [[1, 2, 3], [4, 5, 6], [7]]
    assert await walk("before_seq", {}) == [[5, 6, 7], [2, 3, 4], [1]]


async def test_another_users_conversation_does_not_exist(
    client: httpx.AsyncClient, conversation: str, ana: dict[str, str]
) -> None:
    ben = await register(client)
    answers = [
        await client.get(conversation, headers=ben),
        await client.get(f"{conversation}/messages", headers=ben),
        await client.post(f"{conversation}/messages", headers=ben, json={"content": "hi"}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert (await client.get(conversation, headers=ana)).json()["messages"] == []


async def test_both_directions_at_once_are_refused(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str
) -> None:
    answer = await client.get(f"{conversation}/messages?after_seq=1&before_seq=5", headers=ana)
    assert answer.status_code == 422


async def test_renames(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    answer = await client.patch(conversation, headers=ana, json={"title": "Le marché"})
    assert (answer.status_code, answer.json()["title"]) == (200, "Le marché")
    assert (await client.get(conversation, headers=ana)).json()["title"] == "Le marché"


async def test_deletes_with_all_messages(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    await client.post(f"{conversation}/messages", headers=ana, json={"content": "hi"})
    assert (await client.delete(conversation, headers=ana)).status_code == 204
    for answer in (
        await client.get(conversation, headers=ana),
        await client.get(f"{conversation}/messages", headers=ana),
        await client.post(f"{conversation}/messages", headers=ana, json={"content": "hi"}),
        await client.patch(conversation, headers=ana, json={"title": "back"}),
    ):
        assert answer.status_code == 404
    assert (await client.delete(conversation, headers=ana)).status_code == 204
    assert (await client.delete(conversation, headers=await register(client))).status_code == 404
    listed = (await client.get("/conversations", headers=ana)).json()["items"]
    assert conversation.rpartition("/")[2] not in {item["id"] for item in listed}


async def test_pages_neither_miss_nor_repeat_while_others_come_and_go(
    client: httpx.AsyncClient, ana: dict[str, str]
) -> None:
    made = [(await client.post("/conversations", headers=ana, json={"title": f"t{i}"})).json()["id"] for i in range(12)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/conversations", headers=ana, params={"limit": 3, **cursor})).json()
        seen += [item["id"] for item in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
        await client.post("/conversations", headers=ana, json={"title": "meanwhile"})
        await client.delete(f"/conversations/{seen[-1]}", headers=ana)  # the cursor itself is gone
        await client.post(f"/conversations/{made[0]}/messages", headers=ana, json={"content": "moves updated_at"})
    assert [id_ for id_ in seen if id_ in made] == made[::-1]
    assert len(seen) == len(set(seen))
