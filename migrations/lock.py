"""One pod migrates at a time, the others wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

MIGRATION_LOCK = 7_305_871  # any constant: every pod asks for the same advisory lock


@asynccontextmanager
async def migration_lock(postgres_dsn: str) -> AsyncIterator[None]:
    """Hold PostgreSQL's advisory lock, for MongoDB's migrations too: it ends with its connection, so a killed pod
    blocks nobody, and MongoDB has nothing of that kind."""
    engine = create_async_engine(
        postgres_dsn, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"timeout": 10}
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            yield
    finally:
        await engine.dispose()
