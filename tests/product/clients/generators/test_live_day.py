"""A day in a client's life, as the guide shows it: on generated clients, with answers that are lost all day."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.clients.generators.conftest import Run
from tests.product.clients.generators.scripts import Prepare, python, told_by, typescript
from tests.product.metrics import scrape, value
from tests.under_test import apps_on, fresh_databases
from tristore.testing.lab import App
from tristore.testing.stores import Servers

CONTENTS = ["Bonjour !", "Une baguette, s'il vous plaît.", "Merci, au revoir."]
TIGHT = {"LIVE_HEARTBEAT_SECONDS": "1", "RATE_LIMIT_REQUESTS": "2/second"}
"""A client must wait now and then."""
LOST = [
    b'"email"',
    b"username=",
    b'"title"',
    b"Une baguette",
    b"GET /users/me/export",
    b"DELETE /users/me",
]


@pytest.fixture
async def day_app(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    folder = tmp_path_factory.mktemp("app")
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app(**TIGHT) as app:
        yield app


@pytest.mark.parametrize("prepare", [python, typescript])
async def test_all_of_it_happens_once_though_answers_are_lost_all_day(
    prepare: Prepare, day_app: App, run: Run, document: Path
) -> None:
    told = await told_by("day", prepare, day_app, run, document.parent, LOST)
    assert sorted(told.pop("exported")) == [[], CONTENTS]  # the first is the welcome
    assert told == {"seen": CONTENTS, "erased": True, "over": 401}
    assert (
        value(
            await scrape(day_app.client), "http_server_request_duration_seconds_count", http_response_status_code="429"
        )
        > 0
    )
