"""`manage.py migrate`, which `make run` does as well."""

import asyncio

from alembic import command

from tristore.migrations import schema, scripts
from tristore.migrations.lock import migration_lock
from tristore.settings import TristoreSettings
from tristore.stores.mongodb import MIGRATING, open_mongodb
from tristore.stores.postgres import open_postgres, translate_errors


def migrate(settings: TristoreSettings) -> None:
    """Bring the schemas of PostgreSQL and MongoDB up to this release. Safe from several pods at once. Raises
    StoreUnavailable and Alembic's CommandError."""
    config = schema.alembic_config()
    config.attributes["dsn"] = settings.dsn("postgres_dsn")
    if not asyncio.run(_is_current(settings)):  # a newer release's schema is left alone: this one may be a rollback
        with translate_errors():
            command.upgrade(config, "head")
    asyncio.run(_migrate_mongodb(settings))


async def _is_current(settings: TristoreSettings) -> bool:
    async with open_postgres(settings) as postgres:
        return await schema.is_current(postgres.engine)


async def _migrate_mongodb(settings: TristoreSettings) -> None:
    async with migration_lock(settings.dsn("postgres_dsn")), open_mongodb(settings, **MIGRATING) as mongodb:
        await scripts.upgrade(mongodb.database)
