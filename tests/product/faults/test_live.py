"""Live events while processes and stores die: none lost, none twice, none out of order, none late."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest

from config import Settings
from repositories.conversation_repo import MESSAGES
from tests.product.live import listeners_are
from tests.product.metrics import scrape, value
from tests.product.outages import connected_redis
from tests.product.people import register
from tests.product.things import post, start_conversation
from tests.under_test import Lab, doomed_app
from tristore.cache.feed import CHANNEL
from tristore.testing.lab import FAULTS, App, Fault, until
from tristore.testing.live import Stream, connect, listening

POLL = Settings.model_fields["live_poll_seconds"].default
SLACK = 1.5
"""For a query, and for a machine that does other things as well."""


@pytest.fixture(scope="module")
async def other(lab: Lab) -> AsyncIterator[App]:
    async with lab.app() as app:
        yield app


class Writer:
    """Posts messages, each until it is answered, and notes when it was."""

    def __init__(self, conversation: str, headers: Mapping[str, str]) -> None:
        self._path = f"{conversation}/messages"
        self._headers = dict(headers)
        self.answered: dict[int, float] = {}
        self._news = asyncio.Event()

    async def write(self, apps: list[App], ids: range) -> None:
        for i in ids:
            body = {"id": f"m-{i}", "content": f"message {i}"}
            for attempt in range(100):
                if answer := await self._try(apps[(i + attempt) % len(apps)].client, body):
                    self.answered[answer["seq"]] = time.monotonic()
                    self._news.set()
                    break
                await asyncio.sleep(0.05)

    async def _try(self, client: httpx.AsyncClient, body: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer = await client.post(self._path, headers=self._headers, json=body)
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None

    async def until(self, answered: int) -> None:
        async with asyncio.timeout(60):
            while len(self.answered) < answered:
                self._news.clear()
                await self._news.wait()

    def lateness(self, stream: Stream) -> float:
        """The longest time from when a message was answered, and the stream open, to its event."""
        return max(event.at - max(self.answered[event.id], stream.opened_at) for event in stream.events)


async def test_a_day_of_dropped_listeners_a_dead_redis_and_a_dead_app(lab: Lab, app: App) -> None:
    async with doomed_app(lab) as two, AsyncExitStack() as exits:
        ana = await register(app.client)
        assert (await app.client.patch("/users/me", headers=ana, json={"level": "B2"})).json()["level"] == "B2"
        conversation = await start_conversation(app.client, ana)
        path = f"{conversation}/events"
        writer = Writer(conversation, ana)
        calm = await exits.enter_async_context(listening(app.client.base_url, path, ana))
        doomed = await exits.enter_async_context(listening(two.client.base_url, path, ana))
        async with listening(app.client.base_url, path, ana) as dropped:
            writing = asyncio.gather(*(writer.write([app, two], range(i, i + 50)) for i in range(0, 500, 50)))
            await writer.until(answered=100)
        async with listening(app.client.base_url, path, ana, after=dropped.ids[-1]) as resumed:
            async with lab.without("redis", "killed"):
                await writer.until(answered=200)
            await writer.until(answered=300)
            with suppress(httpx.TransportError):  # it may be dead before it answers
                await two.client.get("/users/me", headers={**ana, "X-Kill-After-Insert": "messages"})
            assert await two.process.wait() == -signal.SIGKILL
            await doomed.until(over=True)
            assert doomed.cut
            async with listening(app.client.base_url, path, ana, after=doomed.ids[-1]) as moved:
                await writing
                for stream, already in ((calm, 0), (resumed, len(dropped.ids)), (moved, len(doomed.ids))):
                    await stream.until(events=500 - already, seconds=POLL + SLACK)
    assert sorted(writer.answered) == list(range(1, 501))
    assert calm.ids == dropped.ids + resumed.ids == doomed.ids + moved.ids == list(range(1, 501))
    late = {round(writer.lateness(stream), 2) for stream in (calm, dropped, resumed, doomed, moved)}
    print(f"latest events after {sorted(late)} s")
    assert max(late) < POLL + SLACK


async def test_a_message_whose_app_died_before_its_wake_up_comes_with_the_next_poll(lab: Lab) -> None:
    async with lab.app() as one, doomed_app(lab) as two:
        ana = await register(one.client)
        conversation = await start_conversation(one.client, ana)
        async with listening(one.client.base_url, f"{conversation}/events", ana) as stream:
            arm = {**ana, "X-Kill-After-Insert": "messages"}
            with pytest.raises(httpx.TransportError):
                await post(two.client, conversation, arm, "its last words")
            assert await two.process.wait() == -signal.SIGKILL
            await stream.until(events=1, seconds=POLL + SLACK)
            samples = await scrape(one.client)
    assert value(samples, "live_events_total", event="found_behind") >= 1
    assert value(samples, "live_events_total", event="woken") == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_redis_one_process_is_quick_and_two_take_a_poll(
    lab: Lab, app: App, other: App, fault: Fault
) -> None:
    ana = await register(app.client)
    conversation = await start_conversation(app.client, ana)
    async with (
        listening(app.client.base_url, f"{conversation}/events", ana) as here,
        listening(other.client.base_url, f"{conversation}/events", ana) as there,
    ):
        async with lab.without("redis", fault):
            for i in range(1, 4):
                await post(app.client, conversation, ana, "x")
                await here.until(events=i, seconds=POLL / 4)
                await there.until(events=i, seconds=POLL + SLACK)
        await until(lambda: is_quick(app, conversation, ana, there), 10)
        await here.until(events=len(there.ids))
    assert here.ids == there.ids == list(range(1, here.ids[-1] + 1))


async def is_quick(app: App, conversation: str, headers: dict[str, str], stream: Stream) -> bool:
    """Whether a wake-up from the other process came through."""
    expected = stream.ids[-1] + 1
    await post(app.client, conversation, headers, "x")
    try:
        await stream.until(events=expected, seconds=POLL / 10)
    except TimeoutError:
        await stream.until(events=expected)
        return False
    return True


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_mongodb_a_stream_stays_open_and_goes_on(lab: Lab, fault: Fault) -> None:
    async with lab.app(LIVE_HEARTBEAT_SECONDS="1") as app:
        ana = await register(app.client)
        conversation = await start_conversation(app.client, ana)
        path = f"{conversation}/events"
        async with listening(app.client.base_url, path, ana) as stream:
            await post(app.client, conversation, ana, "before")
            await stream.until(events=1)
            async with lab.without("mongodb", fault):
                refused = await app.client.get(path, headers=ana)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
                async with connected_redis(lab) as redis:  # woken now, it finds nobody to ask
                    name = MESSAGES.name(ana["X-User-Id"], conversation.rpartition("/")[2])
                    assert await redis.publish(CHANNEL, f"another {name}")
                await stream.until(comments=stream.comments + 2)
            writer = Writer(conversation, ana)
            await writer.write([app], range(5))
            await stream.until(events=6, seconds=POLL + SLACK)
    assert stream.ids == [1, 2, 3, 4, 5, 6]


async def test_sigterm_ends_the_streams_of_a_process_cleanly_and_soon(lab: Lab) -> None:
    async with lab.app(LIVE_MAX_PER_USER="50") as app, AsyncExitStack() as exits:
        ana = await register(app.client)
        path = f"{await start_conversation(app.client, ana)}/events"
        opened = [listening(app.client.base_url, path, ana) for _ in range(50)]
        streams = [await exits.enter_async_context(stream) for stream in opened]
        started = time.monotonic()
        app.process.terminate()
        assert await app.process.wait() == -signal.SIGTERM
        took = time.monotonic() - started
        for stream in streams:
            await stream.until(over=True)
    assert all(stream.ended for stream in streams)
    assert took < 3, took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_streams_go_on_while_draining_and_a_second_signal_ends_them(lab: Lab, number: signal.Signals) -> None:
    async with lab.app(DRAIN_SECONDS="60") as app:
        ana = await register(app.client)
        conversation = await start_conversation(app.client, ana)
        async with listening(app.client.base_url, f"{conversation}/events", ana) as stream:
            app.process.terminate()
            await until(lambda: is_draining(app), 5)
            await post(app.client, conversation, ana, "still served")
            await stream.until(events=1)
            app.process.send_signal(number)
            await stream.until(over=True, seconds=3)
            assert stream.ended
            await asyncio.wait_for(app.process.wait(), 3)


async def is_draining(app: App) -> bool:
    return (await app.client.get("/health/ready")).status_code == 503


async def test_a_reader_that_is_stuck_is_cut_off_and_may_go_on_later(lab: Lab) -> None:
    async with lab.app(LIVE_SEND_SECONDS="1") as app:
        ana = await register(app.client)
        conversation = await start_conversation(app.client, ana)
        path = f"{conversation}/events"
        # More than the kernel buffers for a connection, in messages of 60 KB.
        await post(app.client, conversation, ana, *["\N{CJK UNIFIED IDEOGRAPH-4E00}" * 20_000] * 150)
        stuck, reader, connection = await connect(app.client.base_url, path, ana, after=0)
        async with listening(app.client.base_url, path, ana, after=0) as other:
            await other.until(events=150, seconds=30)
            await until(lambda: listeners_are(app, 1), 10)
            assert value(await scrape(app.client), "live_events_total", event="cut_off") == 1
            await post(app.client, conversation, ana, "still here")
            await other.until(events=151)
        await stuck.read(reader)
        connection.close()
        assert stuck.cut
        async with listening(app.client.base_url, path, ana, after=stuck.ids[-1]) as resumed:
            await resumed.until(events=151 - len(stuck.ids), seconds=30)
    assert 0 < len(stuck.ids) < 150
    assert stuck.ids + resumed.ids == other.ids == list(range(1, 152))
