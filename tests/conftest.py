"""Real servers for the whole run, and an application on databases of its own."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from config import Settings
from main import create_app
from tristore.embedded.servers import EmbeddedServers
from tristore.stores.mongodb import MongoStore
from tristore.stores.redis import RedisStore
from tristore.stores.stores import Stores, open_stores
from tristore.testing import log_of_run
from tristore.testing.lab import App, Lab
from tristore.testing.stores import MONGODB, REDIS, Servers, client_of, fresh_databases, settings_for


def pytest_configure() -> None:
    log_of_run.start()


def pytest_unconfigure() -> None:
    log_of_run.LOG.unlink(missing_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "test_log_of_run" in item.nodeid)  # what it reads must have been written


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    embedded = EmbeddedServers(tmp_path_factory.mktemp("stores"))
    started = embedded.start_all()
    yield started
    for store in started.values():
        embedded.stop(store.store)


@pytest.fixture(scope="session")
async def settings(servers: Servers) -> AsyncIterator[Settings]:
    # A busy machine is no failure: what is late, and when, is for the fault tests.
    patient = {"postgres_request_deadline": 10, "mongodb_timeout": 10, "effects_deadline": 3.5}
    async with fresh_databases(servers, **patient) as settings:
        yield settings


@pytest.fixture(scope="session")
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    async with open_stores(settings) as stores:
        yield stores


@pytest.fixture
async def client(settings: Settings, stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(settings, stores)) as client:
        yield client


@pytest.fixture(params=REDIS)
async def redis_store(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[RedisStore]:
    async with REDIS[request.param](settings_for(servers, redis_timeout=2)) as store:
        yield store


@pytest.fixture(params=MONGODB)
async def mongo_store(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[MongoStore]:
    async with MONGODB[request.param](settings_for(servers)) as store:
        yield store


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
