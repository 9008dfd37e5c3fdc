"""Alembic's environment: the DSN comes from Settings, one pod migrates at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from config import get_settings
from migrations.lock import migration_lock
from models.tables import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    dsn = context.config.attributes.get("dsn") or get_settings().dsn("postgres_dsn")
    engine = create_async_engine(dsn, poolclass=NullPool, connect_args={"timeout": 10})
    async with migration_lock(dsn), engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
