"""A day in a client's life, as the guide shows it: on generated clients, with answers that are lost all day."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.product.clients.generated import generate
from tests.product.clients.generators.conftest import Run
from tests.product.metrics import scrape, value
from tests.product.people import register_admin
from tests.product.things import new_course
from tests.under_test import apps_on, fresh_databases
from tristore.stores.stores import open_stores
from tristore.testing.lab import PROJECT, App
from tristore.testing.proxy import Proxy, proxy_to
from tristore.testing.stores import Servers

CONTENTS = ["Bonjour !", "Une baguette, s'il vous plaît.", "Merci, au revoir."]
TIGHT = {"LIVE_HEARTBEAT_SECONDS": "1", "RATE_LIMIT_REQUESTS": "2/second"}
"""A client must wait now and then."""
LOST = [
    b'"email"',
    b"username=",
    b'"title"',
    b"Une baguette",
    # begin part orders
    b'"course_id"',
    # end part orders
    b"GET /users/me/export",
    b"DELETE /users/me",
]
"""What the requests have in them whose first answers do not come, in the order in which they are sent."""


async def lose_answers(proxy: Proxy) -> None:
    """Each time all connections are cut, that of the live messages too."""
    for matching in LOST:
        proxy.lost, proxy.lose_answer_to = 0, matching
        while not proxy.lost:
            await asyncio.sleep(0.01)
        proxy.lose_answer_to = b""
        proxy.reset()


def python(folder: Path, run: Run) -> list[str]:
    generate((folder / "openapi.json").read_text(), folder)
    return [sys.executable, "day.py"]


def typescript(folder: Path, run: Run) -> list[str]:
    run("openapi-typescript", "openapi.json", "--output=schema.d.ts", "--default-non-nullable=false")
    shutil.copy(Path(__file__).with_name("tsconfig.json"), folder)
    run("tsc")
    return ["node", "day.mts"]


@pytest.fixture
async def day_app(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """With a course that can be ordered."""
    folder = tmp_path_factory.mktemp("app")
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app(**TIGHT) as app:
        async with open_stores(settings) as stores:
            await new_course(app.client, await register_admin(app.client, stores))
        yield app


async def live_a_day(app: App, command: list[str], folder: Path) -> Any:
    """What the client has told at the end of it."""
    port = app.client.base_url.port
    assert port
    async with proxy_to(port) as proxy:
        arguments = (*command, f"http://127.0.0.1:{proxy.port}")
        client = await asyncio.create_subprocess_exec(*arguments, cwd=folder, stdout=asyncio.subprocess.PIPE)
        losing = asyncio.create_task(lose_answers(proxy))
        try:
            printed, _ = await asyncio.wait_for(client.communicate(), 90)
            assert client.returncode == 0
            assert losing.done()
        finally:
            losing.cancel()
            if client.returncode is None:
                client.kill()
                await client.wait()
    return json.loads(printed)


@pytest.mark.parametrize("prepare", [python, typescript])
async def test_all_of_it_happens_once_though_answers_are_lost_all_day(
    prepare: Callable[[Path, Run], list[str]], day_app: App, run: Run, document: Path
) -> None:
    folder = document.parent
    for file in (PROJECT / "docs/clients").glob("*.*"):
        shutil.copy(file, folder)
    told = await live_a_day(day_app, prepare(folder, run), folder)
    # begin part orders
    assert told.pop("order") == "confirmed"
    # end part orders
    assert sorted(told.pop("exported")) == [[], CONTENTS]  # the first is the welcome
    assert told == {"seen": CONTENTS, "erased": True, "over": 401}
    assert value(await scrape(day_app.client), "http_request_seconds_count", status="429") > 0
