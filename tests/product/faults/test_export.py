"""Readers of an export who take nothing: they are cut off, and cost little until then."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from database.stores import open_stores
from tests.product.metrics import scrape, value
from tests.product.people import register
from tests.product.things import start_conversation
from tests.under_test import Lab
from tristore.models import now
from tristore.testing.lab import App, until

MESSAGES, CONTENT = 80, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 20_000
"""More than the kernel buffers for a connection, in the largest messages that there are: 60 KB each."""
READERS, MEGABYTE = 20, 2**20


@pytest.fixture
async def app(lab: Lab) -> AsyncIterator[App]:
    async with lab.app(LIVE_SEND_SECONDS="2") as app:
        yield app


@pytest.fixture
async def users(lab: Lab, app: App) -> list[dict[str, str]]:
    """Each has much to export."""
    users = [await register(app.client) for _ in range(READERS)]
    # While they have little: this fills pools, which are not what an export costs.
    await asyncio.gather(*(app.client.get("/users/me/export", headers=user) for user in users))
    async with open_stores(lab.settings.model_copy(update={"mongodb_timeout": 30})) as stores:
        for headers in users:
            conversation = (await start_conversation(app.client, headers)).rpartition("/")[2]
            await stores.mongodb.database.messages.insert_many(numbered(conversation))
    return users


def numbered(conversation: str) -> list[dict[str, Any]]:
    message = {"conversation_id": conversation, "role": "user", "metadata": {}, "timestamp": now(), "content": CONTENT}
    return [message | {"_id": f"{conversation}/{i}", "id": str(i), "seq": i} for i in range(1, MESSAGES + 1)]


async def ask(exits: ExitStack, base: httpx.URL, headers: dict[str, str]) -> socket.socket:
    """Ask for the export and read nothing."""
    reader = exits.enter_context(socket.socket())
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, (base.host, base.port))
    lines = ["GET /users/me/export HTTP/1.1", "Host: test", f"Authorization: {headers['Authorization']}", "", ""]
    await loop.sock_sendall(reader, "\r\n".join(lines).encode())
    return reader


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
