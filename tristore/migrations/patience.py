"""PostgreSQL's migrations beside a service that works. No statement waits long for a lock: the service's statements
would queue behind it."""

import asyncio
from collections.abc import Callable

import click
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tristore.migrations.failures import in_one_line, sqlstate
from tristore.migrations.lock import migration_engine, migration_lock, unlimited

LOCK_TIMEOUT = text("SET lock_timeout = '5s'")
WAITS = (1, 2, 4, 8)
"""Seconds before each new attempt."""
LOCKED = {"55P03", "40P01"}  # lock_timeout, deadlock

# A CREATE INDEX CONCURRENTLY that was ended in its middle leaves these. An index that is being built is not among them.
INVALID_INDEXES = text(
    "SELECT format('DROP INDEX CONCURRENTLY IF EXISTS %I.%I', nspname, relname) "
    "FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE NOT indisvalid AND relkind = 'i' AND nspname = current_schema() AND pg_has_role(relowner, 'USAGE') "
    "AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid)"
)


async def migrate_under_lock(postgres_dsn: str, run: Callable[[Connection], None], *, mend: bool = True) -> None:
    """Run migrations, and run them again when they could not get a lock. `run` must not repeat what it has committed.
    `mend`: drop invalid indexes first. Raises MigrationFailed and the drivers' errors."""
    engine = migration_engine(postgres_dsn)
    async with migration_lock(postgres_dsn):
        for wait in WAITS:
            try:
                return await _attempt(engine, run, mend)
            except DBAPIError as error:
                if sqlstate(error) not in LOCKED:
                    raise
            click.echo(f"Another transaction has locked what the migration needs. Next attempt in {wait} s.", err=True)
            await asyncio.sleep(wait)
        return await _attempt(engine, run, mend)


async def _attempt(engine: AsyncEngine, run: Callable[[Connection], None], mend: bool) -> None:
    with in_one_line("PostgreSQL"):
        if mend:
            await _drop_invalid_indexes(engine)
        async with unlimited(engine) as connection:
            await connection.execute(LOCK_TIMEOUT)
            await connection.commit()
            await connection.run_sync(run)


async def _drop_invalid_indexes(engine: AsyncEngine) -> None:
    async with unlimited(engine, autocommit=True) as connection:
        await connection.execute(LOCK_TIMEOUT)
        for drop in list(await connection.scalars(INVALID_INDEXES)):
            await connection.execute(text(drop))
