"""Hints which of a user's conversations have new messages, from server processes of their own."""

from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest

from config import Settings
from tests.product.live import listeners_are
from tests.product.people import register
from tests.product.things import post, start_conversation
from tests.under_test import apps_on
from tristore.live.hints import NEWEST
from tristore.testing.lab import App, Apps, until
from tristore.testing.live import Stream, listening

QUIET = {"LIVE_HEARTBEAT_SECONDS": "60", "LIVE_POLL_SECONDS": "60"}
"""Whatever happens in time happens by a wake-up."""


@pytest.fixture(scope="module")
def apps(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Apps:
    return apps_on(settings, tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
async def app(apps: Apps) -> AsyncIterator[App]:
    async with apps.app(**QUIET) as app:
        yield app


@pytest.fixture
async def client(app: App) -> httpx.AsyncClient:
    return app.client


@pytest.fixture
async def ana(client: httpx.AsyncClient) -> dict[str, str]:
    return await register(client)


def told(stream: Stream) -> list[tuple[str, int]]:
    assert {event.type for event in stream.events} <= {"moved"}
    return [(f"/conversations/{e.decoded['conversation_id']}", e.decoded["last_seq"]) for e in stream.events]


async def test_each_connection_begins_with_how_it_stands_newest_first(
    client: httpx.AsyncClient, ana: dict[str, str], app: App
) -> None:
    first, second = [await start_conversation(client, ana) for _ in range(2)]
    await post(client, first, ana, "one", "two")
    for _ in range(2):
        async with listening(app.client.base_url, "/events", ana) as stream:
            await stream.until(events=3)
            assert told(stream)[:2] == [(first, 2), (second, 0)]
            assert stream.opening == {"retry": "1000"}  # without an id there is nothing to resume


async def test_then_it_hints_at_what_moves_and_at_nobody_elses(
    client: httpx.AsyncClient, ana: dict[str, str], app: App, apps: Apps
) -> None:
    conversations = [await start_conversation(client, ana) for _ in range(2)]
    ben = await register(client)
    bens = await start_conversation(client, ben)
    async with apps.app(**QUIET) as other, listening(client.base_url, "/events", ana) as stream:
        await stream.until(events=3)
        for number, (conversation, by) in enumerate(zip(conversations, (app, other), strict=True), 4):
            await post(app.client, bens, ben, "not hers")
            await post(by.client, conversation, ana, "hi")
            await stream.until(events=number)
        assert told(stream)[3:] == [(conversation, 1) for conversation in conversations]


async def test_a_repeat_is_no_news_and_hides_none(
    client: httpx.AsyncClient, ana: dict[str, str], app: App, apps: Apps
) -> None:
    """A repeat leaves a number behind that no message has. What is polled must not take it for the present one."""
    async with apps.app(LIVE_POLL_SECONDS="0.1") as polling:
        conversation = await start_conversation(client, ana)
        async with listening(polling.client.base_url, "/events", ana) as stream:
            await stream.until(events=2)
            for number in (1, 2):
                for _ in range(3):
                    body = {"id": f"m-{number}", "content": "hi"}
                    assert (await client.post(f"{conversation}/messages", headers=ana, json=body)).is_success
                await stream.until(events=2 + number)
            assert told(stream)[2:] == [(conversation, 1), (conversation, 2)]
        async with listening(polling.client.base_url, "/events", ana) as again:
            await again.until(events=2)
            assert told(again)[0] == (conversation, 2)


async def test_a_new_conversation_comes_with_a_poll(client: httpx.AsyncClient, ana: dict[str, str], apps: Apps) -> None:
    async with apps.app(LIVE_POLL_SECONDS="0.1") as polling:
        async with listening(polling.client.base_url, "/events", ana) as stream:
            await stream.until(events=1)
            conversation = await start_conversation(client, ana)
            await stream.until(events=2)
            assert told(stream)[1] == (conversation, 0)


async def test_the_state_is_of_the_newest_and_any_other_is_hinted_at_when_it_moves(
    client: httpx.AsyncClient, ana: dict[str, str], app: App
) -> None:
    oldest = await start_conversation(client, ana)
    for _ in range(NEWEST):
        await start_conversation(client, ana)
    async with listening(app.client.base_url, "/events", ana) as stream:
        await stream.until(events=NEWEST)
        assert oldest not in dict(told(stream))
        await post(client, oldest, ana, "hi")
        await stream.until(events=NEWEST + 1)
        assert told(stream)[-1] == (oldest, 1)


async def test_it_ends_with_the_session_and_needs_one(
    client: httpx.AsyncClient, ana: dict[str, str], apps: Apps
) -> None:
    assert (await client.get("/events")).status_code == 401
    async with apps.app(**QUIET) as other, listening(client.base_url, "/events", ana) as stream:
        assert (await other.client.post("/auth/logout", headers=ana)).status_code == 204
        await stream.until(over=True, seconds=5)
        assert stream.ended


async def test_open_streams_are_limited(apps: Apps) -> None:
    async with apps.app(LIVE_MAX_PER_USER="1", LIVE_MAX_LISTENERS="2") as app:
        ana, ben, eve = [await register(app.client) for _ in range(3)]
        base = app.client.base_url
        async with listening(base, "/events", ana), listening(base, "/events", ben):
            await until(partial(listeners_are, app, 2), 5)
            assert (await app.client.get("/events", headers=ana)).status_code == 503
            refused = await app.client.get("/events", headers=eve)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        await until(partial(listeners_are, app, 0), 5)
        async with listening(base, "/events", ana):
            assert (await app.client.get("/events", headers=ana)).status_code == 429


async def test_the_document_says_what_comes(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/events"]["get"]["responses"]
    [content] = responses["200"]["content"].values()
    assert set(content["x-itemSchema"]["properties"]) == {"event", "data"}
    assert set(content["x-itemSchema"]["properties"]["data"]["contentSchema"]["properties"]) == {
        "conversation_id",
        "last_seq",
    }
    assert {"401", "429", "503"} < responses.keys()
