"""Live events of a conversation, from a server process of its own: httpx's in-process transport cannot stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from sqlalchemy import text

from config import Settings
from tests.product.live import listeners_are
from tests.product.metrics import scrape, value
from tests.product.people import account, register, sign_in
from tests.product.things import post, start_conversation
from tests.under_test import apps_on
from tristore.stores.stores import Stores
from tristore.testing.lab import App, Apps, until
from tristore.testing.live import Stream, listening

Open = Callable[..., AbstractAsyncContextManager[Stream]]
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


@pytest.fixture
async def conversation(client: httpx.AsyncClient, ana: dict[str, str]) -> str:
    return await start_conversation(client, ana)


@pytest.fixture
def listen(app: App, conversation: str, ana: dict[str, str]) -> Open:
    return partial(listening, app.client.base_url, f"{conversation}/events", ana)


async def test_from_now_on_each_message_comes_as_reading_it_would_give_it(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, listen: Open
) -> None:
    await post(client, conversation, ana, "before")
    async with listen() as stream:
        await post(client, conversation, ana, "one", "two\r\nlines\u2028or\u2029three\x85é", "  ")
        await stream.until(events=3)
    page = (await client.get(f"{conversation}/messages", headers=ana)).json()
    assert stream.ids == [2, 3, 4]
    assert [(event.type, event.decoded) for event in stream.events] == [("message", item) for item in page["items"][1:]]


async def test_the_head_says_what_it_is_and_that_nobody_may_keep_it(listen: Open) -> None:
    async with listen() as stream:
        for line in ("content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"):
            assert line in stream.head


async def test_the_first_frame_says_where_it_begins_and_when_to_come_back(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, listen: Open
) -> None:
    async with listen() as stream:
        await stream.until(opened=True)
        assert stream.opening == {"id": "0", "retry": "1000"}
    await post(client, conversation, ana, "one", "two")
    for after, opening in ((None, "2"), (1, "1"), (2, "2")):
        async with listen(after) as stream:
            await stream.until(opened=True)
            assert stream.opening == {"id": opening, "retry": "1000"}


async def test_whoever_is_ahead_of_the_conversation_is_told_and_goes_on_from_now(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, listen: Open
) -> None:
    await post(client, conversation, ana, "one", "two")
    async with listen(7) as stream:
        await post(client, conversation, ana, "three")
        await stream.until(events=1)
    assert stream.opening == {"id": "2", "retry": "1000", "event": "reset", "data": '{"last_seq": 2}'}
    assert stream.ids == [3]


async def test_goes_on_after_the_last_id_through_many_pages(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, listen: Open
) -> None:
    await post(client, conversation, ana, *map(str, range(45)))
    for after in (0, 3, 44):
        async with listen(after) as stream:
            await stream.until(events=45 - after)
            assert stream.ids == list(range(after + 1, 46))
    async with listen(45) as stream:
        await post(client, conversation, ana, "one more")
        await stream.until(events=1)
        assert stream.ids == [46]


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "1e3", "", "0x1", "NaN", str(2**63), "1, 2"])
async def test_any_other_last_id_is_refused_by_name(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, bad: str
) -> None:
    answer = await client.get(f"{conversation}/events", headers=ana | {"Last-Event-ID": bad})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


async def test_nobody_else_may_listen(client: httpx.AsyncClient, ana: dict[str, str], conversation: str) -> None:
    path = f"{conversation}/events"
    assert (await client.get(path)).status_code == 401
    assert (await client.get(path, headers=await register(client))).status_code == 404
    assert (await client.get("/conversations/x/events", headers=ana)).status_code == 422


@pytest.mark.parametrize("way", ["this session", "all sessions", "a new password"])
async def test_a_session_that_ends_in_another_process_ends_its_streams(apps: Apps, app: App, way: str) -> None:
    body = account()
    registered = await app.client.post("/users/register", json=body)
    assert registered.status_code == 201
    here, there = [await sign_in(app.client, body["username"], body["password"]) for _ in range(2)]
    path = f"/conversations/{registered.json()['welcome_conversation_id']}/events"
    async with (
        apps.app(**QUIET) as other,
        listening(app.client.base_url, path, here) as ends,
        listening(app.client.base_url, path, there) as other_session,
    ):
        if way == "this session":
            answer = await other.client.post("/auth/logout", headers=here)
        elif way == "all sessions":
            answer = await other.client.post("/auth/logout-all", headers=there)
        else:
            change = {"current_password": body["password"], "new_password": "battery staple 7"}
            answer = await other.client.post("/users/me/password", headers=there, json=change)
        assert answer.status_code == 204
        await ends.until(over=True, seconds=5)
        assert ends.ended
        if way == "all sessions":
            await other_session.until(over=True, seconds=5)
        else:
            await post(app.client, path.removesuffix("/events"), there, "still here")
            await other_session.until(events=1)


async def test_a_session_that_ended_unheard_is_found_at_the_next_heartbeat(apps: Apps, stores: Stores) -> None:
    async with apps.app(LIVE_HEARTBEAT_SECONDS="0.5", NEAR_SESSION_SECONDS="1") as app:
        ana = await register(app.client)
        path = f"{await start_conversation(app.client, ana)}/events"
        async with listening(app.client.base_url, path, ana) as stream:
            await stream.until(comments=3)
            async with stores.postgres.engine.begin() as connection:
                sql = "UPDATE sessions SET revoked_at = now() WHERE user_id = :id"
                await connection.execute(text(sql), {"id": ana["X-User-Id"]})
            await stores.redis.client.flushall()
            await stream.until(over=True, seconds=5)
            assert stream.ended


async def test_a_deleted_conversation_ends_its_streams(apps: Apps) -> None:
    async with apps.app(LIVE_POLL_SECONDS="0.2") as app:
        ana = await register(app.client)
        conversation, other = [await start_conversation(app.client, ana) for _ in range(2)]
        async with (
            listening(app.client.base_url, f"{conversation}/events", ana) as stream,
            listening(app.client.base_url, f"{other}/events", ana) as goes_on,
        ):
            assert (await app.client.delete(conversation, headers=ana)).status_code == 204
            await stream.until(over=True, seconds=5)
            assert stream.ended
            await post(app.client, other, ana, "still here")
            await goes_on.until(events=1)


async def test_open_streams_are_limited_by_user_and_in_all(apps: Apps) -> None:
    async with apps.app(LIVE_MAX_PER_USER="2", LIVE_MAX_LISTENERS="3") as app:
        ana, ben = await register(app.client), await register(app.client)
        path, bens = [f"{await start_conversation(app.client, who)}/events" for who in (ana, ben)]
        base = app.client.base_url
        async with listening(base, path, ana), listening(base, bens, ben):
            async with listening(base, path, ana):
                refused = await app.client.get(bens, headers=ben)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
                samples = await scrape(app.client)
                assert value(samples, "live_listeners") == 3
            await until(partial(listeners_are, app, 2), 5)
            async with listening(base, path, ana):
                pass
        async with listening(base, path, ana), listening(base, path, ana):
            refused = await app.client.get(path, headers=ana)
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
        await until(partial(listeners_are, app, 0), 5)


async def test_a_refused_listener_takes_no_place(apps: Apps) -> None:
    async with apps.app(LIVE_MAX_PER_USER="1", LIVE_MAX_LISTENERS="1") as app:
        ana, ben = await register(app.client), await register(app.client)
        path = f"{await start_conversation(app.client, ana)}/events"
        answers = await asyncio.gather(*(app.client.get(path, headers=ben) for _ in range(5)))
        assert {answer.status_code for answer in answers} <= {404, 429, 503}
        async with listening(app.client.base_url, path, ana):
            assert await listeners_are(app, 1)


async def test_the_document_says_what_comes(
    client: httpx.AsyncClient, ana: dict[str, str], conversation: str, listen: Open
) -> None:
    document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/conversations/{conversation_id}/events"]["get"]["responses"]
    item = OAS31Validator(responses["200"]["content"]["text/event-stream"]["x-itemSchema"])
    async with listen(7) as stream:
        await post(client, conversation, ana, "one")
        await stream.until(events=1)
    item.validate(stream.opening)
    message = {"id": "1", "event": stream.events[0].type, "data": stream.events[0].data}
    item.validate(message)
    assert not item.is_valid(message | {"event": "other"})
    for status in ("401", "404", "422", "429", "503"):
        assert set(responses[status]["content"]) == {"application/problem+json"}
