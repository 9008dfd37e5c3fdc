"""Which history of PostgreSQL's data the process is connected to. What is cached belongs to one."""

import time
from collections.abc import Callable

import asyncpg
import structlog

from tristore.stores.hosts import Connection

log = structlog.get_logger()

# A promoted server begins another timeline. The control file tells of it only after the next checkpoint.
NAME = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN
    system_identifier || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END
FROM pg_control_system()
"""


CANNOT_TELL = (
    asyncpg.UndefinedFunctionError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
)
RECENT_SECONDS = 60.0


class Lineage:
    """System identifier and timeline. A standby that replicates asynchronously loses the last commits when it is
    promoted. Versions of rows begin again below what the cache holds, so that no version tells the two apart."""

    def __init__(self, *, asks_at_commit: bool = False) -> None:
        """`asks_at_commit`: a pooler may lead each transaction to another server, so a connection is not enough."""
        self.name = ""
        """Empty until the first connection, and for good where a server of another make does not tell it."""
        self.asks_at_commit = asks_at_commit
        self._before: tuple[str, float] = ("", 0.0)
        self._listeners: list[Callable[[], object]] = []
        self._is_told = True

    @property
    def recently(self) -> str:
        """The name before this one, for a minute: other processes may not have learned of the new one. Else empty."""
        name, until = self._before
        return name if time.monotonic() < until else ""

    def listen(self, changed: Callable[[], object]) -> None:
        """Call it when a connection leads to another history than the one before."""
        self._listeners.append(changed)

    async def learn(self, connection: Connection) -> None:
        """Ask the server: on each new connection, because what is then written through it belongs to what is said here,
        and with each probe, because a pooler may change the server behind a connection. A standby is not asked. Raises
        what asyncpg raises for a connection that fails."""
        try:
            await self.confirm(connection)
        except CANNOT_TELL as error:
            self._is_told = False  # the server would log each second that it cannot
            log.warning("postgresql_tells_no_timeline", cause=type(error).__name__)

    async def confirm(self, connection: Connection) -> None:
        """As `learn`, within a transaction: one in which a statement has failed must not be committed, so it raises."""
        name = await connection.fetchval(NAME) if self._is_told else None
        if name and name != self.name:
            if self.name:
                self._before = (self.name, time.monotonic() + RECENT_SECONDS)
            self.name = name
            for changed in self._listeners:
                changed()
