"""The hosts of a PostgreSQL DSN, of which one takes writes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from tristore.stores.dsn import asyncpg_arguments

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""Another host may do better. What a server says of user, password or database is the same on all."""
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:  # generic in the stubs only
    Connection = asyncpg.Connection

OF_SQLALCHEMY = {"prepared_statement_cache_size"}
NOT_THE_PRIMARY = asyncpg.TargetServerAttributeNotMatched


class Hosts:
    """Connects to one that takes writes (or to any, as the DSN says): the last good one first. asyncpg has one time for
    all hosts, so a hung one in front would leave none for the next."""

    def __init__(
        self,
        dsn: str,
        moved: Callable[[], object] = lambda: None,
        connected: Callable[[Connection], Awaitable[object]] | None = None,
    ) -> None:
        """`moved` is called when a connection leads to another host than the one before, `connected` with each new
        connection. One for which it raises is not used."""
        self._hosts = asyncpg_arguments(dsn)
        self.of_sqlalchemy = {
            name: arguments.pop(name) for arguments in self._hosts for name in OF_SQLALCHEMY & arguments.keys()
        }
        """Arguments that SQLAlchemy takes for itself."""
        self._moved = moved
        self._connected = connected
        self._next = 0
        self._good: int | None = None

    async def connect(self, **arguments: Any) -> Connection:
        """`arguments` are asyncpg's, and win over the DSN's. `timeout` holds for each host. Raises what one of them
        failed with, rather than that one takes no writes. The next connection begins where this one has failed."""
        errors: list[Exception] = []
        for _ in self._hosts:
            try:
                return await self._connect_to(self._next, arguments)
            except (*UNREACHABLE, NOT_THE_PRIMARY) as error:
                errors.append(error)
        raise next((error for error in errors if not isinstance(error, NOT_THE_PRIMARY)), errors[-1])

    async def _connect_to(self, number: int, arguments: dict[str, Any]) -> Connection:
        try:
            async with asyncio.timeout(arguments.get("timeout")):
                connection: Connection = await asyncpg.connect(**self._hosts[number] | arguments)
                if self._connected:
                    await self._told(connection)
        except BaseException:  # also a request that has no time left
            if self._next == number:  # nobody else has moved on meanwhile
                self._next = (number + 1) % len(self._hosts)
            raise
        if self._good not in {None, number}:
            self._moved()
        self._good = self._next = number
        return connection

    async def _told(self, connection: Connection) -> None:
        assert self._connected
        try:
            await self._connected(connection)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):  # it was closed underneath
                raise ConnectionError(type(error).__name__) from error
            raise
