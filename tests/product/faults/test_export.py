"""Readers of an export who take nothing: they are cut off, and cost little until then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import psutil
import pytest

from database.stores import open_stores
from tests.product.metrics import scrape, value
from tests.product.people import register
from tests.product.things import start_conversation
from tests.product.unread import MESSAGES, ask, fill
from tests.under_test import Lab
from tristore.testing.lab import App, until

READERS, MEGABYTE = 20, 2**20


@pytest.fixture
async def app(lab: Lab) -> AsyncIterator[App]:
    async with lab.app(LIVE_SEND_SECONDS="2") as app:
        yield app


@pytest.fixture
async def users(lab: Lab, app: App, request: pytest.FixtureRequest) -> list[dict[str, str]]:
    """Each has much to export."""
    users = [await register(app.client) for _ in range(getattr(request, "param", READERS))]
    # While they have little: this fills pools, which are not what an export costs.
    await asyncio.gather(*(app.client.get("/users/me/export", headers=user) for user in users))
    async with open_stores(lab.settings.model_copy(update={"mongodb_timeout": 30})) as stores:
        for headers in users:
            await fill(stores, await start_conversation(app.client, headers))
    return users


async def test_twenty_who_read_nothing_are_cut_off_and_cost_little_until_then(
    app: App, users: list[dict[str, str]]
) -> None:
    read = await app.client.get("/users/me/export", headers=users[0])
    assert len(read.content) > MESSAGES * 60_000
    process = psutil.Process(app.process.pid)
    before = most = process.memory_info().rss
    with ExitStack() as exits:
        asked = await asyncio.gather(*(ask(exits, app.client.base_url, user) for user in users))
        ports = {reader.getsockname()[1] for reader in asked}

        def connections() -> int:
            nonlocal most
            most = max(most, process.memory_info().rss)
            peers = {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}
            return len(ports & peers)

        async def all_are_open() -> bool:
            return connections() == READERS

        async def all_are_ended() -> bool:
            return connections() == 0

        await until(all_are_open, 10)
        await until(all_are_ended, 30)
    samples = await scrape(app.client)
    for store in ("postgresql", "mongodb"):
        assert value(samples, "store_pool_connections", store=store, state="in_use") == 0
    assert (most - before) / MEGABYTE < 20


@pytest.mark.parametrize("users", [1], indirect=True)
@pytest.mark.parametrize("bytes_read", [0, 1000])
async def test_who_is_cut_off_may_ask_again(app: App, users: list[dict[str, str]], bytes_read: int) -> None:
    """Soon, whatever the garbage collector does: it is seldom asked."""
    with ExitStack() as exits:
        reader = await ask(exits, app.client.base_url, users[0])
        if bytes_read:
            await asyncio.get_running_loop().sock_recv(reader, bytes_read)
    statuses = []

    async def is_made() -> bool:
        statuses.append((await app.client.get("/users/me/export", headers=users[0])).status_code)
        return statuses[-1] == 200

    assert await until(is_made, 5) < 5
    assert {*statuses} <= {200, 409}
