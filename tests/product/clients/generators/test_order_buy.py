"""Ordering a seat, as docs/clients/buy.* show it: on generated clients, with answers that are lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.clients.generators.conftest import Run
from tests.product.clients.generators.scripts import Prepare, python, told_by, typescript
from tests.product.people import register_admin
from tests.product.things import new_course
from tests.under_test import apps_on, fresh_databases
from tristore.stores.stores import open_stores
from tristore.testing.lab import App
from tristore.testing.stores import Servers


@pytest.fixture
async def shop(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """With a course that can be ordered."""
    folder = tmp_path_factory.mktemp("app")
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app() as app:
        async with open_stores(settings) as stores:
            await new_course(app.client, await register_admin(app.client, stores))
        yield app


@pytest.mark.parametrize("prepare", [python, typescript])
async def test_a_seat_is_ordered_once_though_answers_are_lost(
    prepare: Prepare, shop: App, run: Run, document: Path
) -> None:
    told = await told_by("buy", prepare, shop, run, document.parent, [b'"email"', b"username=", b'"course_id"'])
    assert told == {"order": "confirmed", "orders": 1}
