"""Real servers for the whole run, and an application on databases of its own.

With several workers (pytest-xdist) PostgreSQL and MongoDB are shared, and each worker has databases of its own there.
Each has its own Redis, because its channels are shared by all databases of a server, and its own lab.
"""

import gc
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from config import Settings
from main import create_app
from tests.under_test import QUICK_HASH, SECRETS, Lab, fresh_databases, migrated_mongodb, own_lab, settings_for
from tristore.embedded.servers import EmbeddedServers
from tristore.ops.process import configure_logging
from tristore.passwords import CONTEXT
from tristore.stores.mongodb import MongoStore
from tristore.stores.redis import RedisStore
from tristore.stores.stores import Stores, open_stores
from tristore.testing import log_of_run, pooler
from tristore.testing.cluster import RedisCluster, cluster_in
from tristore.testing.guarded import guarded_folder, hold, memory
from tristore.testing.lab import App
from tristore.testing.stores import MONGODB, REDIS, Servers, allow_faults, client_of

FOLDER = pytest.StashKey[Path]()
"""Of the run. All its servers and logs are in there, and nothing of it is left at the end."""
LEAKS = pytest.StashKey[list[str]]()
LOGGED_BEFORE = pytest.StashKey[int]()
"""So long the log of the run was when a test began. Bytes."""


def pytest_configure(config: pytest.Config) -> None:
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    exits = ExitStack()
    config.add_cleanup(exits.close)
    if worker:
        folder = Path(worker["folder"])
        exits.enter_context(hold(folder))
    else:
        folder = exits.enter_context(guarded_folder("tristore-tests-", within=memory()))
        config.option.basetemp = config.option.basetemp or folder / "tmp"
    config.stash[FOLDER] = folder
    CONTEXT.update(**QUICK_HASH)  # in this process; app processes hash as production does
    # As in production, at the level that tells most.
    configure_logging(Settings(_env_file=None, environment="test", log_level="DEBUG"))
    log_of_run.write_to(folder / f"{worker['workerid'] if worker else 'main'}.log")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["folder"] = str(node.config.stash[FOLDER])


def pytest_collection_finish() -> None:
    """What exists now stays: no full collection looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[LOGGED_BEFORE] = log_of_run.path().stat().st_size


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what apps have logged, too, which pytest's own plugin for logs does not know of."""
    report = yield
    if report.failed:
        logged = log_of_run.since(item.stash[LOGGED_BEFORE])
        report.sections.append(("logged by this test and its apps", logged))
    return report


@pytest.hookimpl(trylast=True)  # all workers have ended by then
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a secret is in its logs."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    logs = [log.read_text(errors="replace") for log in config.stash[FOLDER].glob("*.log")]
    config.stash[LEAKS] = [leak for log in logs for leak in log_of_run.secrets_in(log, SECRETS)]
    if config.stash[LEAKS]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if leaks := config.stash.get(LEAKS, []):
        terminalreporter.section("SECRETS in what this run logged, or answered as errors", red=True)
        for leak in leaks:
            terminalreporter.write_line(leak)


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.stash[FOLDER]


@pytest.fixture(scope="session")
def servers(run_folder: Path, worker_id: str) -> Servers:
    shared = EmbeddedServers(run_folder / "shared").start_all(("postgresql", "mongodb"))
    allow_faults(shared["mongodb"])
    if pooler.MODE:
        pooler.port_of(shared["postgresql"], run_folder / worker_id)
    return shared | EmbeddedServers(run_folder / worker_id).start_all(["redis"])


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


@pytest.fixture(scope="session")
def served(settings: Settings, stores: Stores) -> FastAPI:
    """One for all tests: FastAPI builds each route at its first request, which is a sixth of what the API's tests take.
    Services, and whatever they count or keep, are made anew for each test, by the lifespan."""
    return create_app(settings, stores)


@pytest.fixture
async def client(served: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(served) as client:
        yield client


@pytest.fixture(scope="session")
async def cluster(run_folder: Path, worker_id: str) -> AsyncIterator[RedisCluster]:
    """Three servers that nobody stops."""
    async with cluster_in(run_folder / f"cluster-{worker_id}", replicas=0) as cluster:
        yield cluster


@pytest.fixture(params=REDIS)
def kind_of_redis(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """One of the table REDIS, and the settings that it needs. What is not asked for is not started."""
    cluster: RedisCluster | None = request.getfixturevalue("cluster") if request.param == "cluster" else None
    return request.param, {"redis_dsn": cluster.dsn} if cluster else {}


@pytest.fixture
async def redis_store(kind_of_redis: tuple[str, dict[str, str]], servers: Servers) -> AsyncIterator[RedisStore]:
    kind, more = kind_of_redis
    async with REDIS[kind](settings_for(servers, redis_timeout=2, **more)) as store:
        yield store


@pytest.fixture(params=MONGODB)
async def mongo_store(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[MongoStore]:
    async with migrated_mongodb(request.param, servers) as store:
        yield store


@pytest.fixture(scope="session")
async def lab(run_folder: Path, worker_id: str) -> AsyncIterator[Lab]:
    async with own_lab(run_folder / f"lab-{worker_id}") as lab:
        yield lab


@pytest.fixture(scope="session")
async def app(lab: Lab) -> AsyncIterator[App]:
    # A command that has stopped reading a stream ends with the next heartbeat.
    async with lab.app(LIVE_HEARTBEAT_SECONDS="1") as app:
        yield app
