"""One pod migrates at a time, the others wait; and how migrations treat PostgreSQL's own limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from tristore.stores.postgres import engine_for

MIGRATION_LOCK = 7_305_871  # any constant: every pod asks for the same advisory lock
ASK_SECONDS, SAY_EVERY = 0.5, 10

TAKE = text("SELECT pg_try_advisory_lock(:key)")
HOLDER = text(
    "SELECT pid, application_name, date_trunc('second', backend_start) AS since "
    "FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = :key AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# Limits of the role or the database would end a long migration, or the lock. Older servers do not know all of them.
NO_LIMITS = text(
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', "
    "'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
)


def migration_engine(postgres_dsn: str) -> AsyncEngine:
    """An engine that keeps no connection. Take connections of `unlimited`."""
    settings = {"application_name": "migration"}
    return engine_for(postgres_dsn, {"timeout": 10, "server_settings": settings}, poolclass=NullPool)


@asynccontextmanager
async def unlimited(engine: AsyncEngine, *, autocommit: bool = False) -> AsyncIterator[AsyncConnection]:
    """A connection without the time-outs of its role, for what takes as long as it takes."""
    async with engine.connect() as connection:
        if autocommit:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(NO_LIMITS)
        await connection.commit()
        yield connection


@asynccontextmanager
async def migration_lock(postgres_dsn: str) -> AsyncIterator[None]:
    """Hold PostgreSQL's advisory lock, for MongoDB's migrations too: MongoDB has no such lock. It ends with its
    connection, so a killed pod blocks nobody."""
    async with unlimited(migration_engine(postgres_dsn), autocommit=True) as connection:
        await _take(connection)
        yield


async def _take(connection: AsyncConnection) -> None:
    # We ask again and again. Whoever waits inside `pg_advisory_lock` has a snapshot, and the holder's CREATE INDEX
    # CONCURRENTLY waits until all snapshots are gone.
    tries = 0
    while not await connection.scalar(TAKE, {"key": MIGRATION_LOCK}):
        if tries % SAY_EVERY == 0:
            await _say_who_holds_it(connection)
        tries += 1
        await asyncio.sleep(ASK_SECONDS)


async def _say_who_holds_it(connection: AsyncConnection) -> None:
    holder = (await connection.execute(HOLDER, {"key": MIGRATION_LOCK})).first()
    if holder:
        name = holder.application_name or "unnamed"
        click.echo(
            f"Waiting for another migration of this database: process {holder.pid} of PostgreSQL, "
            f"{name}, connected since {holder.since:%Y-%m-%d %H:%M:%S %Z}.",
            err=True,
        )
