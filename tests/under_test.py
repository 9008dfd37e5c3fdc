"""The service under test, as `tristore.testing` needs it: its settings, its migrations, its entry points."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alembic import command
from anyio import to_thread

from config import Settings
from migrations import REVISIONS, SCRIPTS
from tristore.embedded.servers import EmbeddedServers
from tristore.stores.mongodb import MongoStore, open_mongodb
from tristore.stores.stores import Stores, open_stores
from tristore.testing import lab, stores, warm
from tristore.testing.lab import App, Apps
from tristore.testing.stores import MONGODB, Servers

APP = "main:app"
NO_LIMITS = {name: "" for name in Settings.model_fields if name.startswith("rate_limit_")}
SECRETS = {
    "password": r"correct horse 9|battery staple 7|not this one|not the password|hunter2-should-never-come-back",
    "password hash": r"\$argon2",
    "token": r"(?<![\w-])[\w-]{43}(?![\w-])",
    "token's hash": r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])",
    "email": r"(?i)@example\.com",
    "DSN": r"(?:postgres(?:ql)?|redis|mongodb)(?:\+\w+)?://[^\s\"')]*[@:\d]",
}
"""What no log and no error answer may hold."""
warm.preload("tests.warm")
QUICK_HASH = {"argon2__memory_cost": 64, "argon2__time_cost": 1}
"""For tests of anything but hashing: a real hash takes 40 ms of a core."""


def settings_for(servers: Servers, **values: Any) -> Settings:
    return stores.settings_on(servers, Settings, **NO_LIMITS | values)


def fresh_databases(servers: Servers, **values: Any) -> AbstractAsyncContextManager[Settings]:
    """Settings that lead to databases of the test's own on running servers, migrated."""
    return stores.fresh_databases(settings_for(servers, **values), migrate)


async def migrate(settings: Settings) -> None:
    await to_thread.run_sync(lambda: command.upgrade(REVISIONS.config(settings.migrations_dsn()), "head"))
    async with open_mongodb(settings.model_copy(update={"mongodb_timeout": 30})) as store:
        await SCRIPTS.upgrade(store.database)


def stores_beside(settings: Settings) -> AbstractAsyncContextManager[Stores]:
    """For a test that looks for itself at what apps with these settings have, on a busy machine too."""
    return open_stores(settings.model_copy(update={"mongodb_timeout": 5, "postgres_connect_timeout": 5}))


@asynccontextmanager
async def migrated_mongodb(kind: str, servers: Servers) -> AsyncIterator[MongoStore]:
    """One of the table MONGODB, with our collections and their indexes."""
    async with MONGODB[kind](settings_for(servers)) as store:
        await SCRIPTS.upgrade(store.database)
        yield replace(store, required_scripts=SCRIPTS.newest())


@dataclass(frozen=True)
class Lab(lab.Lab):
    settings: Settings


def apps_on(settings: Settings, folder: Path) -> Apps:
    return Apps(settings, APP, folder)


@asynccontextmanager
async def own_lab(
    folder: Path, migrated: Callable[[Settings], Awaitable[None]] = migrate, **values: Any
) -> AsyncIterator[Lab]:
    """A lab whose servers have their data in the folder. Whoever made the folder ends them: see guarded.py. `migrated`
    brings its databases up."""
    embedded = EmbeddedServers(folder)
    servers = await to_thread.run_sync(embedded.start_all)
    await to_thread.run_sync(stores.allow_faults, servers["mongodb"])
    async with stores.fresh_databases(settings_for(servers, **values), migrated) as settings:
        yield Lab(settings, APP, servers["redis"].data, embedded, servers)


def doomed_app(apps: Apps, **more: str) -> AbstractAsyncContextManager[App]:
    """An app process that kills itself when told: see doomed.py."""
    return apps.running("tests.doomed", **more)
