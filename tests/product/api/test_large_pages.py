"""An answer has a most: of large messages fewer come at once, and none is missing."""

import httpx

from tests.product.people import register
from tests.product.things import start_conversation
from tests.product.unread import CONTENT, MESSAGES, fill
from tristore.models import MOST_OF_A_PAGE
from tristore.stores.stores import Stores

LARGEST = MOST_OF_A_PAGE + 1000


async def test_pages_of_large_messages_have_a_most_and_miss_none(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    conversation = await start_conversation(client, headers)
    await fill(stores, conversation)
    numbers = range(1, MESSAGES + 1)
    for parameter, start, expected in (("after_seq", 0, [*numbers]), ("before_seq", MESSAGES + 1, [*numbers][::-1])):
        seen: list[int] = []
        position: int | None = start
        while position is not None:
            query = {parameter: position, "limit": 100}
            answer = await client.get(f"{conversation}/messages", headers=headers, params=query)
            assert len(answer.content) < LARGEST
            page = answer.json()
            found = [item["seq"] for item in page["items"]]
            seen += found if parameter == "after_seq" else found[::-1]
            position = page["next"]
        assert seen == expected
    last = await client.get(conversation, headers=headers, params={"messages": 100})
    assert len(last.content) < LARGEST
    assert last.json()["messages"][-1]["seq"] == MESSAGES
    assert len(last.json()["messages"]) == MOST_OF_A_PAGE // (len(CONTENT.encode()) + 200)


async def test_small_messages_fill_a_page(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    conversation = await start_conversation(client, headers)
    for number in range(25):
        assert (
            await client.post(f"{conversation}/messages", headers=headers, json={"content": f"{number}"})
        ).is_success
    page = (await client.get(f"{conversation}/messages", headers=headers, params={"limit": 24, "after_seq": 0})).json()
    assert ([item["seq"] for item in page["items"]], page["next"]) == ([*range(1, 25)], 24)
