"""The guide's Python client for live messages."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from docs.clients.follow import follow
from tests.product.live_cuts import SETTINGS, follow_through_cuts
from tests.product.people import register
from tests.product.things import start_conversation
from tests.under_test import apps_on, fresh_databases
from tristore.testing.stores import Servers


async def follow_in_python(
    base: str, conversation_id: str, headers: dict[str, str], after: int | None, on_number: Callable[[int], None]
) -> int:
    async def on_message(message: Any) -> None:
        on_number(message["seq"])

    async with httpx.AsyncClient(base_url=base, headers=headers) as client:
        return await follow(client, conversation_id, on_message, after=after)


@pytest.mark.timeout(1200)  # with CUTS=10000
async def test_each_message_comes_once_and_in_order_however_often_the_stream_is_cut(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with (
        fresh_databases(servers) as settings,
        apps_on(settings, tmp_path_factory.mktemp("app")).app(**SETTINGS) as app,
    ):
        ana = await register(app.client)
        await follow_through_cuts(app, await start_conversation(app.client, ana), ana, follow_in_python)
