"""PostgreSQL: the truth. Its engines, the time that a request may wait for it, and its health probe."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import asyncpg
from sqlalchemy import AdaptedConnection, SelectBase, event, make_url, text
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.sql.compiler import SQLCompiler

from tristore import spans
from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.dsn import CACHE_SIZES
from tristore.stores.hosts import Connection, Hosts
from tristore.stores.lineage import Lineage
from tristore.stores.postgres_errors import translate_errors as translate_errors
from tristore.stores.replica import MARGIN_SECONDS, Replica
from tristore.stores.watched import named, watch
from tristore.stores.write_gate import WriteGate

T = TypeVar("T")

URL = "postgresql+asyncpg://"
GATE = "write_gate"
REPLICA_SECONDS = 0.3
"""So long a request waits for the replica. The primary must have time for it as well."""


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
    gate: WriteGate
    lineage: Lineage
    replica: Replica | None
    """See `read_anywhere`."""


class Budget:
    """Seconds that one request may still wait for PostgreSQL, over all its statements."""

    def __init__(self, seconds: float) -> None:
        self.remaining = seconds


_budget: ContextVar[Budget | None] = ContextVar("postgres_budget", default=None)


def start_budget(seconds: float) -> None:
    """Bound what the current task's context may wait for PostgreSQL. Without it only the pool's timeouts hold."""
    _budget.set(Budget(seconds))


class _Connection(Connection):
    async def close(self, *, timeout: float | None = None) -> None:
        # SQLAlchemy gives a connection that it no longer trusts `timeout=2` to say goodbye. A stopped server would
        # hold the request for as long, so such a connection is cut instead.
        if timeout is None:
            await super().close()
        else:
            self.terminate()


def engine_for(
    dsn: str,
    connect_args: dict[str, object],
    moved: Callable[[], object] = lambda: None,
    connected: Callable[[Connection], Awaitable[object]] | None = None,
    **options: object,
) -> AsyncEngine:
    """The one way to an engine: asyncpg reads the DSN, so that it may say what libpq's URIs may. No error, and no repr,
    shows values or the DSN. `moved` and `connected`: see Hosts."""
    hosts = Hosts(dsn, moved, connected)
    arguments = hosts.of_sqlalchemy | connect_args | {"async_creator_fn": hosts.connect}
    return create_async_engine(URL, connect_args=arguments, hide_parameters=True, **options)


def _engine(
    settings: TristoreSettings,
    gate: WriteGate,
    lineage: Lineage | None,
    role: str,
    pool_size: int,
    max_overflow: int = 0,
    dsn: str = "",
) -> AsyncEngine:
    """Without a lineage it leads to where nobody writes, so its gate never closes."""
    engine = engine_for(
        dsn or settings.dsn("postgres_dsn"),
        echo=settings.sql_echo,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=settings.postgres_request_deadline * 0.8,  # shorter, so that an empty pool can say so
        pool_recycle=settings.postgres_pool_recycle,
        pool_use_lifo=True,
        execution_options={GATE: gate if lineage else None},
        moved=gate.replace_connections,
        connected=lineage.learn if lineage else None,
        connect_args={
            "connection_class": _Connection,
            "timeout": settings.postgres_connect_timeout,
            "command_timeout": settings.postgres_statement_timeout,
            "server_settings": {"application_name": f"{settings.app_name}-{role}", **_limits(settings)},
            **_caches(settings),
        },
    )
    event.listen(engine.sync_engine, "connect", partial(_note_generation, gate))
    event.listen(engine.sync_engine, "checkout", partial(_replace_dead_connection, gate))
    if spans.are_on():
        watch(engine.sync_engine)
    return engine


def _limits(settings: TristoreSettings) -> dict[str, str]:
    """What the server itself limits. A pooler takes no such thing at the start of a connection, and gives the next
    client what is set later: there the role must have them."""
    if settings.postgres_pooler != "none":
        return {}
    return {
        "statement_timeout": _milliseconds(settings.postgres_statement_timeout),
        "lock_timeout": _milliseconds(settings.postgres_lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(settings.postgres_idle_in_transaction_timeout),
    }


def _caches(settings: TristoreSettings) -> dict[str, int]:
    """A statement that is prepared belongs to one server connection, and the next transaction may get another. Both
    keep prepared statements: SQLAlchemy, and asyncpg, which HotQuery uses."""
    return dict.fromkeys(CACHE_SIZES, 0) if settings.postgres_pooler == "transaction" else {}


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _note_generation(gate: WriteGate, dbapi_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[GATE] = gate.generation


def _replace_dead_connection(
    gate: WriteGate, dbapi_connection: AdaptedConnection, record: ConnectionPoolEntry, proxy: object
) -> None:
    # After a restart of the server the loop has seen the end of file: no round trip (`pool_pre_ping`) is needed to
    # know. The pool answers DisconnectionError with a fresh connection.
    if dbapi_connection.driver_connection.is_closed() or record.info[GATE] != gate.generation:
        raise sa.DisconnectionError


@asynccontextmanager
async def open_postgres(settings: TristoreSettings) -> AsyncIterator[Postgres]:
    """Open the engines; connects on first use. Closes every connection at the end."""
    gate, lineage = WriteGate(), Lineage(asks_at_commit=settings.postgres_pooler != "none")
    opened = partial(_engine, settings, gate, lineage)
    engine = opened("app", settings.postgres_pool_size, settings.postgres_max_overflow)
    postgres = Postgres(
        engine=engine,
        reads=engine.execution_options(isolation_level="AUTOCOMMIT"),
        background=opened("relay", 3).execution_options(isolation_level="AUTOCOMMIT"),
        probe_engine=opened("probe", 1),
        gate=gate,
        lineage=lineage,
        replica=_replica(settings),
    )
    gate.probe = partial(ping, postgres)
    try:
        yield postgres
    finally:
        await gate.stop()
        for engine in (postgres.engine, postgres.background, postgres.probe_engine):
            await engine.dispose()
        if postgres.replica:
            await postgres.replica.close()


def _replica(settings: TristoreSettings) -> Replica | None:
    if settings.postgres_replica_dsn is None:
        return None
    dsn = settings.postgres_replica_dsn.get_secret_value()
    opened = partial(_engine, settings, WriteGate(), None, dsn=dsn)
    reads = opened("replica", settings.postgres_pool_size).execution_options(isolation_level="AUTOCOMMIT")
    margin = settings.postgres_request_deadline + MARGIN_SECONDS
    return Replica(reads, opened("replica-probe", 1), settings.postgres_replica_max_lag, margin)


async def ping(postgres: Postgres) -> None:
    """Whether it takes writes, asked on the probe's own connection. Opens the gate, or closes it. Raises
    StoreUnavailable."""
    generation = postgres.gate.generation
    with translate_errors():
        async with postgres.probe_engine.connect() as connection:
            if await connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                await connection.invalidate()  # it may lead to a server that was demoted: the next probe looks anew
                postgres.gate.close(generation, "transaction_read_only")
                raise StoreUnavailable("postgresql", "read only", "transaction_read_only")
            raw = await connection.get_raw_connection()
            await postgres.lineage.learn(cast(Connection, raw.driver_connection))
    postgres.gate.open()


def pool_use(postgres: Postgres) -> tuple[int, int]:
    """Connections in use, and what the pool holds at most."""
    pool = postgres.engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout(), pool.size()


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A pooled connection within the request's budget; uncommitted work is rolled back. Raises StoreUnavailable."""
    async with within_budget(engine.sync_engine.get_execution_options()[GATE]), engine.connect() as connection:
        yield connection


async def read_anywhere(postgres: Postgres, read: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """What `read` finds. It is called on the replica if one is there and not too far behind, and if it is known that
    the caller has not just written; else, and when that fails, on the primary. A repository declares with this that it
    may find what was true some seconds ago. Nothing read so may be cached, or decide about a write. Raises
    StoreUnavailable."""
    replica = postgres.replica
    if replica and await replica.may_serve():
        budget = _budget.get()
        seconds = min(REPLICA_SECONDS, budget.remaining / 3) if budget else REPLICA_SECONDS
        try:
            async with asyncio.timeout(seconds), connect(replica.engine) as connection:
                found = await read(connection)
        except TimeoutError:
            replica.counts["late"] += 1  # the statement may be slow everywhere; if not, the next look will show it
        except StoreUnavailable as error:
            if error.reason != "busy":
                replica.leave_out(error.cause)
        else:
            replica.counts["replica"] += 1
            return found
    if replica:
        replica.counts["primary"] += 1
    async with connect(postgres.reads) as connection:
        return await read(connection)


class HotQuery:
    """A query of at most one row, by asyncpg itself on a pooled connection. SQLAlchemy's executing takes several
    times as long as the query (docs/performance.md); the SQL is still its own, compiled once."""

    def __init__(self, query: SelectBase) -> None:
        compiled = query.compile(dialect=make_url(URL).get_dialect()())
        assert isinstance(compiled, SQLCompiler)
        self._sql, self._names = str(compiled), compiled.positiontup or ()
        self._constants = compiled.params
        self._named = named(self._sql)

    async def row(self, postgres: Postgres, **parameters: object) -> asyncpg.Record | None:
        """Within the request's budget. Raises StoreUnavailable."""
        values = [parameters.get(name, self._constants[name]) for name in self._names]
        async with within_budget(postgres.gate):
            connection = await postgres.engine.raw_connection()
            try:
                driver = cast(Connection, connection.driver_connection)
                with spans.call("postgresql", *self._named):
                    row = await driver.fetchrow(self._sql, *values)
            except BaseException:
                connection.invalidate()  # it may still be waiting for the answer
                raise
            finally:
                connection.close()  # back to the pool; there is no transaction to roll back, so nothing to await
            return row


@asynccontextmanager
async def within_budget(gate: WriteGate | None = None) -> AsyncIterator[None]:
    """Count what waits here as waiting for PostgreSQL, and end it with the budget. Raises StoreUnavailable, at once
    while the gate is closed."""
    generation = gate.generation if gate else 0
    if gate and gate.is_closed:
        raise StoreUnavailable("postgresql", "read only")
    budget = _budget.get() or Budget(float("inf"))
    started = time.monotonic()
    try:
        with translate_errors():
            async with asyncio.timeout(max(budget.remaining, 0)):
                yield
    except StoreUnavailable as error:
        if gate and error.store == "postgresql" and error.reason == "read only":
            gate.close(generation, error.cause)
        raise
    finally:
        budget.remaining -= time.monotonic() - started
