"""MySQL or MariaDB: points. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from examples.mysql_points.settings import PointsSettings
from examples.mysql_points.tables import metadata, probe
from tristore.errors import Reason, StoreUnavailable
from tristore.stores.translation import by_code

STORE = "mysql"
"""Its name in the outbox, in errors and in the log."""

# The server's and the client's codes, of MySQL and of MariaDB. What is not here is the statement's own fault.
CODES: dict[str, Reason] = by_code(
    {
        # Refused, lost, shutting down, the connection was killed; or the DSN is wrong.
        "unreachable": "2002 2003 2006 2013 2055 1045 1049 1053 1077 1079 1152 1158 1159 1160 1161 1184 1927",
        "timeout": "1317 1969 3024",
        # Too many connections, out of memory, lock_wait_timeout, deadlock.
        "busy": "1037 1040 1041 1203 1205 1213 1226",
        "read only": "1290 1792 1836",
        # The disk or the table is full, or the server's own files are broken.
        "refuses writes": "3 28 1021 1026 1030 1034 1114 1194 1195",
        "not permitted": "1044 1142 1143 1227 1370",
        "not migrated": "1054 1146",
    }
)


@dataclass
class MySQL:
    engine: AsyncEngine
    """Pooled. Each statement is a transaction of its own."""
    probe_engine: AsyncEngine
    """One connection for the probe: a busy pool must not look like a dead server."""
    timeout: float
    """Seconds that one operation may take, the wait for a connection included."""
    serves: bool = True
    """Whether the last operation was served."""

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one operation, bounded in time. Raises StoreUnavailable."""
        async with self._bounded(self.engine) as connection:
            yield connection

    async def ping(self) -> None:
        """A write as the service does them, which changes nothing: a server that only answers does not serve. Raises
        StoreUnavailable."""
        async with self._bounded(self.probe_engine) as connection:
            await connection.execute(probe)

    async def create_tables(self) -> None:
        """Those that are not there yet. Raises StoreUnavailable."""
        async with self.operation() as connection:
            await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        await self.engine.dispose()
        await self.probe_engine.dispose()

    @asynccontextmanager
    async def _bounded(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            with translate_errors():
                async with asyncio.timeout(self.timeout), engine.connect() as connection:
                    yield connection
        except StoreUnavailable:
            self.serves = False
            raise
        self.serves = True


def open_mysql(settings: PointsSettings) -> MySQL:
    """Open it without connecting: the service starts while MySQL is down."""
    return MySQL(_engine(settings, settings.mysql_pool_size), _engine(settings, 1), settings.mysql_timeout)


def _engine(settings: PointsSettings, size: int) -> AsyncEngine:
    arguments: dict[str, object] = {"connect_timeout": settings.mysql_timeout}
    if settings.mysql_tls:
        arguments["ssl"] = ssl.create_default_context()
    return create_async_engine(
        settings.mysql_url(),
        connect_args=arguments,
        isolation_level="AUTOCOMMIT",
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,  # a step of a saga is not hot, and the round trip finds connections that a restart has cut
        pool_recycle=1800,  # less than the server's wait_timeout
        hide_parameters=True,
    )


@contextmanager
def translate_errors() -> Iterator[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    try:
        yield
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        raise StoreUnavailable(STORE, reason, _code_of(error) or type(error).__name__) from error


def reason_of(error: BaseException) -> Reason | None:
    """Why MySQL was not available, or None when the error is not about that."""
    if reason := CODES.get(_code_of(error)):
        return reason
    if isinstance(error, sa.TimeoutError):
        return "busy"  # no pooled connection became free
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError) or (isinstance(error, sa.DBAPIError) and error.connection_invalidated):
        return "unreachable"
    return None


def _code_of(error: BaseException) -> str:
    """Empty where the error has none. The text beside it is never looked at: it may hold data."""
    arguments = error.orig.args if isinstance(error, sa.DBAPIError) and error.orig else ()
    return str(arguments[0]) if arguments and isinstance(arguments[0], int) else ""
