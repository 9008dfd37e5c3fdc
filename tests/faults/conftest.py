"""One lab for all fault tests: its servers are not those of the other tests."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.lab import App, Lab
from tests.stores import fresh_databases
from tristore.embedded.servers import EmbeddedServers


@pytest.fixture(scope="session")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    embedded = EmbeddedServers(tmp_path_factory.mktemp("lab"))
    servers = embedded.start_all()
    async with fresh_databases(servers) as settings:
        yield Lab(embedded, servers, settings)
    for store in servers.values():
        embedded.stop(store.store)


@pytest.fixture(scope="session")
async def app(lab: Lab) -> AsyncIterator[App]:
    # A command that has stopped reading a stream ends with the next heartbeat.
    async with lab.app(LIVE_HEARTBEAT_SECONDS="1") as app:
        yield app
