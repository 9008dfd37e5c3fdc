"""Which history of PostgreSQL's data the process is connected to. What is cached belongs to one."""

from collections.abc import Callable

import asyncpg

from tristore.stores.hosts import Connection

# A promoted server begins another timeline. The control file tells of it only after the next checkpoint.
NAME = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN
    system_identifier || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END
FROM pg_control_system()
"""


class Lineage:
    """System identifier and timeline. A standby that replicates asynchronously loses the last commits when it is
    promoted. Versions of rows begin again below what the cache holds, so that no version tells the two apart."""

    def __init__(self) -> None:
        self.name = ""
        """Empty until the first connection, and for good where a server of another make does not tell it."""
        self._listeners: list[Callable[[], object]] = []
        self._is_told = True

    def listen(self, changed: Callable[[], object]) -> None:
        """Call it when a connection leads to another history than the one before."""
        self._listeners.append(changed)

    async def learn(self, connection: Connection) -> None:
        """Ask the server: on each new connection, because what is then written through it belongs to what is said here,
        and with each probe, because a pooler may change the server behind a connection. A standby is not asked. Raises
        what asyncpg raises for a connection that fails."""
        if not self._is_told:
            return
        try:
            name = await connection.fetchval(NAME)
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError:
            self._is_told = False  # no use to ask each second: the server would log each time that it cannot
            return
        if name and name != self.name:
            self.name = name
            for changed in self._listeners:
                changed()
