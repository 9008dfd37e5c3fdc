"""An app process for clients that are not ours, on databases of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.under_test import apps_on, fresh_databases
from tristore.testing.lab import App
from tristore.testing.stores import Servers


@pytest.fixture(scope="session")
async def app(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with fresh_databases(servers) as settings, apps_on(settings, tmp_path_factory.mktemp("app")).app() as app:
        yield app


@pytest.fixture
async def app_with_mailbox(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """As `make run` starts it: it keeps mails, and shows them at `/mail`."""
    folder = tmp_path_factory.mktemp("app")
    local = {"ENVIRONMENT": "local", "DATA_DIR": str(folder), "OUTBOX_POLL_SECONDS": "0.1"}
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app(**local) as app:
        yield app
