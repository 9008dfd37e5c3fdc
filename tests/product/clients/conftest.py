"""An app process for clients that are not ours, on databases of its own."""

from collections.abc import AsyncIterator

import pytest

from tristore.embedded.servers import EmbeddedServers
from tristore.testing.lab import App, Lab
from tristore.testing.stores import Servers, fresh_databases


@pytest.fixture(scope="session")
async def app(servers: Servers) -> AsyncIterator[App]:
    embedded = EmbeddedServers(servers["redis"].data.parent)
    async with fresh_databases(servers) as settings, Lab(embedded, servers, settings).app() as app:
        yield app
