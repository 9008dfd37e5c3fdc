"""Hints while processes and stores die: none is missed, none is later than the poll."""

import signal

import httpx
import pytest

from config import Settings
from tests.product.people import register
from tests.product.things import post, start_conversation
from tests.under_test import Lab, doomed_app
from tristore.testing.lab import FAULTS, App, Fault
from tristore.testing.live import Stream, listening

POLL = Settings.model_fields["live_poll_seconds"].default
SLACK = 1.5
"""For two queries, and for a machine that does other things as well."""


def newest(stream: Stream) -> tuple[str, int]:
    data = stream.events[-1].decoded
    return f"/conversations/{data['conversation_id']}", data["last_seq"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_redis_the_other_process_is_found_by_a_poll(lab: Lab, app: App, fault: Fault) -> None:
    ana = await register(app.client)
    conversations = [await start_conversation(app.client, ana) for _ in range(2)]
    async with lab.app() as other, listening(other.client.base_url, "/events", ana) as stream:
        await stream.until(events=3)
        async with lab.without("redis", fault):
            for number in range(1, 5):
                conversation = conversations[number % 2]
                await post(app.client, conversation, ana, "hi")
                await stream.until(events=3 + number, seconds=POLL + SLACK)
                assert newest(stream) == (conversation, (number + 1) // 2)


async def test_a_message_whose_app_died_before_its_wake_up_is_hinted_at_and_listed(lab: Lab) -> None:
    async with lab.app() as one, doomed_app(lab) as two:
        ana = await register(one.client)
        conversation = await start_conversation(one.client, ana)
        await start_conversation(one.client, ana)
        async with listening(one.client.base_url, "/events", ana) as stream:
            await stream.until(events=3)
            with pytest.raises(httpx.TransportError):
                await post(two.client, conversation, {**ana, "X-Kill-After-Insert": "messages"}, "its last words")
            assert await two.process.wait() == -signal.SIGKILL
            await stream.until(events=4, seconds=POLL + SLACK)
            assert newest(stream) == (conversation, 1)
        listed = (await one.client.get("/conversations?sort=recent&limit=1", headers=ana)).json()["items"][0]
        assert (f"/conversations/{listed['id']}", listed["last_message"]["preview"]) == (conversation, "its last words")


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_mongodb_a_stream_stays_open_and_goes_on(lab: Lab, fault: Fault) -> None:
    async with lab.app(LIVE_HEARTBEAT_SECONDS="1") as app:
        ana = await register(app.client)
        conversation = await start_conversation(app.client, ana)
        async with listening(app.client.base_url, "/events", ana) as stream:
            await stream.until(events=2)
            async with lab.without("mongodb", fault):
                refused = await app.client.get("/events", headers=ana)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
                await stream.until(comments=stream.comments + 2)
            await post(app.client, conversation, ana, "back")
            await stream.until(events=3, seconds=POLL + SLACK)
            assert newest(stream) == (conversation, 1)
