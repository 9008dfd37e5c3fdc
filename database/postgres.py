"""PostgreSQL: the truth. Engine, request deadline, health probe, and what its drivers' errors mean."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import Select, event, text
from sqlalchemy import exc as sa
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi, PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from config import Settings
from database.dsn import asyncpg_arguments
from database.translation import translating
from services.errors import Reason

# First two characters of SQLSTATE (PostgreSQL manual, appendix A) -> why the server could not serve us.
# Every other class is the statement's own fault, so it is not translated.
SQLSTATE_REASONS: dict[str, Reason] = {
    "08": "unreachable",  # connection exception
    "28": "unreachable",  # invalid authorization: the DSN is wrong
    "3D": "unreachable",  # the database does not exist
    "40": "busy",  # serialization failure, deadlock
    "53": "busy",  # out of connections, memory or disk
    "55": "busy",  # lock_timeout, object in use
    "57": "unreachable",  # shutting down, starting up, or cancelled by statement_timeout
    "58": "unreachable",  # I/O error of the server
}
CLIENT_REASONS: dict[type[BaseException], Reason | None] = {
    sa.TimeoutError: "busy",  # no pooled connection became free
    TimeoutError: "timeout",
    OSError: "unreachable",  # refused, reset, no such host
    asyncpg.exceptions.TargetServerAttributeNotMatched: "read only",  # of all hosts that answer
    asyncpg.InterfaceError: "unreachable",  # the connection was closed underneath
    asyncpg.exceptions.DataError: None,  # an argument of the wrong type: our own fault
    asyncpg.InternalClientError: "unreachable",  # a server that is being killed has just said so: no statement is taken
}


@dataclass(frozen=True)
class Postgres:
    engine: AsyncEngine
    """Pooled; every request waits for it no longer than its Budget."""
    reads: AsyncEngine
    """The same pool. Each statement is its own transaction: around a single read BEGIN and ROLLBACK would triple it."""
    background: AsyncEngine
    """A few connections for the relay, so that a busy service cannot starve it. Each statement is a transaction."""
    probe_engine: AsyncEngine
    """One connection for health checks: a busy pool must not make the service look dead."""


class Budget:
    """Seconds that one request may still wait for PostgreSQL, over all its statements."""

    def __init__(self, seconds: float) -> None:
        self.remaining = seconds


_budget: ContextVar[Budget | None] = ContextVar("postgres_budget", default=None)


def start_budget(seconds: float) -> None:
    """Bound what the current task's context may wait for PostgreSQL. Without it only the pool's timeouts hold."""
    _budget.set(Budget(seconds))


if TYPE_CHECKING:
    _Base = asyncpg.Connection[asyncpg.Record]
else:  # generic in the stubs only
    _Base = asyncpg.Connection


class _Connection(_Base):
    async def close(self, *, timeout: float | None = None) -> None:
        # SQLAlchemy gives a connection that it no longer trusts `timeout=2` to say goodbye. A stopped server would
        # hold the request for as long, so such a connection is cut instead.
        if timeout is None:
            await super().close()
        else:
            self.terminate()


def engine_for(dsn: str, connect_args: dict[str, Any], **options: Any) -> AsyncEngine:
    """The one way to an engine: asyncpg reads the DSN, so that it may say what libpq's URIs may. No error, and no repr,
    shows values or the DSN."""
    arguments = asyncpg_arguments(dsn) | connect_args
    return create_async_engine("postgresql+asyncpg://", connect_args=arguments, hide_parameters=True, **options)


def _engine(settings: Settings, role: str, pool_size: int, max_overflow: int = 0) -> AsyncEngine:
    engine = engine_for(
        settings.dsn("postgres_dsn"),
        echo=settings.sql_echo,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=settings.postgres_request_deadline * 0.8,  # shorter, so that an empty pool can say so
        pool_recycle=settings.postgres_pool_recycle,
        pool_use_lifo=True,
        connect_args={
            "connection_class": _Connection,
            "timeout": settings.postgres_connect_timeout,
            "command_timeout": settings.postgres_statement_timeout,
            "server_settings": {
                "application_name": f"{settings.app_name}-{role}",
                "statement_timeout": _milliseconds(settings.postgres_statement_timeout),
                "lock_timeout": _milliseconds(settings.postgres_lock_timeout),
                "idle_in_transaction_session_timeout": _milliseconds(settings.postgres_idle_in_transaction_timeout),
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _replace_dead_connection)
    return engine


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _replace_dead_connection(dbapi_connection: Any, record: object, proxy: object) -> None:
    # After a restart of the server the loop has seen the end of file: no round trip (`pool_pre_ping`) is needed to
    # know. The pool answers DisconnectionError with a fresh connection.
    if dbapi_connection.driver_connection.is_closed():
        raise sa.DisconnectionError


@asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncIterator[Postgres]:
    """Open the engines; connects on first use. Closes every connection at the end."""
    engine = _engine(settings, "app", settings.postgres_pool_size, settings.postgres_max_overflow)
    postgres = Postgres(
        engine=engine,
        reads=engine.execution_options(isolation_level="AUTOCOMMIT"),
        background=_engine(settings, "relay", 3).execution_options(isolation_level="AUTOCOMMIT"),
        probe_engine=_engine(settings, "probe", 1),
    )
    try:
        yield postgres
    finally:
        for engine in (postgres.engine, postgres.background, postgres.probe_engine):
            await engine.dispose()


async def ping(postgres: Postgres) -> None:
    """One round trip on the probe's own connection. Raises StoreUnavailable."""
    with translate_errors():
        async with postgres.probe_engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


def pool_use(postgres: Postgres) -> tuple[int, int]:
    """Connections in use, and what the pool holds at most."""
    pool: Any = postgres.engine.pool
    return pool.checkedout(), pool.size()


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A pooled connection within the request's budget; uncommitted work is rolled back. Raises StoreUnavailable."""
    async with within_budget(), engine.connect() as connection:
        yield connection


class HotQuery:
    """A query of at most one row, by asyncpg itself on a pooled connection. SQLAlchemy's executing takes several
    times as long as the query (docs/performance.md); the SQL is still its own, compiled once."""

    def __init__(self, query: Select[Any]) -> None:
        dialect: Any = PGDialect_asyncpg
        compiled: Any = query.compile(dialect=dialect())
        self._sql, self._names = str(compiled), compiled.positiontup or ()
        self._constants = compiled.params

    async def row(self, postgres: Postgres, **parameters: Any) -> asyncpg.Record | None:
        """Within the request's budget. Raises StoreUnavailable."""
        values = [parameters.get(name, self._constants[name]) for name in self._names]
        async with within_budget():
            connection = await postgres.engine.raw_connection()
            try:
                driver: Any = connection.driver_connection
                row: asyncpg.Record | None = await driver.fetchrow(self._sql, *values)
            except BaseException:
                connection.invalidate()  # it may still be waiting for the answer
                raise
            finally:
                connection.close()  # back to the pool; there is no transaction to roll back, so nothing to await
            return row


@asynccontextmanager
async def within_budget() -> AsyncIterator[None]:
    """Count what waits here as waiting for PostgreSQL, and end it with the budget. Raises StoreUnavailable."""
    budget = _budget.get() or Budget(float("inf"))
    started = time.monotonic()
    try:
        with translate_errors():
            async with asyncio.timeout(max(budget.remaining, 0)):
                yield
    finally:
        budget.remaining -= time.monotonic() - started


def translate_errors() -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("postgresql", reason_of)


def reason_of(error: BaseException) -> Reason | None:
    """Why PostgreSQL was not available, or None when the error is not about that."""
    if isinstance(error, sa.DBAPIError) and error.orig is not None:
        if error.connection_invalidated:
            return "unreachable"
        error = error.orig
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error):  # also by itself, when the pool cannot connect
        error = error.__cause__ or error
    if isinstance(error, asyncpg.QueryCanceledError):
        return "timeout"
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return "not migrated"
    if isinstance(error, asyncpg.PostgresError):
        return SQLSTATE_REASONS.get((error.sqlstate or "")[:2])
    return next((CLIENT_REASONS[cls] for cls in type(error).__mro__ if cls in CLIENT_REASONS), None)
