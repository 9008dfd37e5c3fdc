"""`manage.py migrate`, which `make run` does as well."""

import asyncio

from alembic import command

from tristore.migrations.history import History, is_current
from tristore.migrations.lock import migration_lock
from tristore.migrations.scripts import Scripts
from tristore.settings import TristoreSettings
from tristore.stores.mongodb import MIGRATING, open_mongodb
from tristore.stores.postgres import open_postgres, translate_errors


def migrate(settings: TristoreSettings, revisions: History, scripts: Scripts) -> None:
    """Bring the schemas of PostgreSQL and MongoDB up to this release. Safe from several pods at once. Raises
    StoreUnavailable and Alembic's CommandError."""
    # A newer release's schema is left alone: this release may be a rollback.
    if not asyncio.run(_is_current(settings, revisions)):
        with translate_errors():
            command.upgrade(revisions.config(settings.migrations_dsn()), "head")
    asyncio.run(_migrate_mongodb(settings, scripts))


async def _is_current(settings: TristoreSettings, revisions: History) -> bool:
    async with open_postgres(settings) as postgres:
        return await is_current(postgres.engine, revisions)


async def _migrate_mongodb(settings: TristoreSettings, scripts: Scripts) -> None:
    async with migration_lock(settings.migrations_dsn()), open_mongodb(settings, **MIGRATING) as mongodb:
        await scripts.upgrade(mongodb.database)
