"""Connections to Redis: to the host of a DSN, to the one that its Sentinels name, or to a server of a cluster."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, urlencode

from redis.asyncio import BlockingConnectionPool, ConnectionPool, SentinelConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff

from tristore.stores.dsn import SENTINEL_OPTIONS, Dsn, addresses, is_sentinel, read_redis

SENTINELS_PORT = 26379


class Pool(BlockingConnectionPool):
    """Gets each connection back. redis-py's own waits for a lock to take it, which is held while another connection is
    closed. Whoever was cancelled while it waited left its connection in use for good: a hung Redis and impatient
    requests took a place of the pool each time."""

    def __init__(
        self, *arguments: Any, is_of_now: Callable[[AbstractConnection], bool] = lambda _: True, **options: Any
    ) -> None:
        """`is_of_now`: whether a connection leads where the newest one does. Another is opened anew before it is used:
        whoever replaces them all at a failover may miss one that is just given out."""
        super().__init__(*arguments, **options)
        self._is_of_now = is_of_now
        self._late: set[asyncio.Task[None]] = set()

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        await super().ensure_connection(connection)
        if not self._is_of_now(connection):
            await connection.disconnect()
            await super().ensure_connection(connection)

    async def release(self, connection: AbstractConnection) -> None:
        try:
            await super().release(connection)
        except asyncio.CancelledError:
            if connection in self._in_use_connections:
                task = asyncio.create_task(super().release(connection))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            raise

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await asyncio.gather(*self._late, return_exceptions=True)
        await super().disconnect(inuse_connections)


class SentinelConnection(SentinelManagedConnection):
    """Asks the Sentinels each time it connects. redis-py's own goes back to the same server when it was cut while it
    was in use, and an old primary may take writes for seconds more."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        await super().send_packed_command(command, check_health)


class SentinelTlsConnection(SentinelConnection, SentinelManagedSSLConnection):
    pass


class SentinelPool(SentinelConnectionPool, Pool):
    """Asks the Sentinels at each new connection. That is a part of connecting, so it has no more time than that. Waits
    for a connection as the other pool does; redis-py's own would refuse at once."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:  # at the end; else there is a new primary
            await self.sentinel_manager.aclose()

    async def is_of_primary(self) -> bool:
        """Whether its connections lead where the Sentinels say now. After a failover by hand the old primary takes
        writes for some eight seconds more. Raises the driver's errors, also when no Sentinel answers."""
        before = self.master_address
        return before in {None, await self.get_master_address()}  # type: ignore[no-untyped-call]


async def replace_connections(pool: ConnectionPool) -> None:
    """Those in use are replaced when they come back."""
    for connection in pool._in_use_connections:
        connection.mark_for_reconnect()
    await pool.disconnect(inuse_connections=False)


def pool_for(text: str, **options: Any) -> Pool:
    """For a DSN that `read_redis` accepts. The options are redis-py's."""
    dsn = read_redis(text)
    if not is_sentinel(dsn):
        return Pool(**options, **parse_url(text))
    service, _, database = dsn.path.partition("/")
    own: dict[str, Any] = {**parse_url(_of_one_host(dsn, database))}
    own["ssl"] = own.pop("connection_class", None) is SSLConnection
    of_sentinels = {name: value for name, value in own.items() if name.startswith("ssl")}
    of_sentinels |= {name: options[name] / 2 for name in ("socket_timeout", "socket_connect_timeout")}
    of_sentinels["retry"] = Retry(NoBackoff(), 0)  # there is another one to ask
    of_sentinels |= {name[9:]: value for name, value in dsn.options.items() if name in SENTINEL_OPTIONS}
    own["connection_class"] = SentinelTlsConnection if own["ssl"] else SentinelConnection
    sentinels = Sentinel(addresses(dsn.hosts, SENTINELS_PORT), sentinel_kwargs=of_sentinels)
    return SentinelPool(  # type: ignore[no-untyped-call]
        service, sentinels, **options, **{name: own[name] for name in own if name != "host"}
    )


def pool_to(address: tuple[str, int], text: str, **options: Any) -> Pool:
    """To one server of a cluster, with what the cluster's DSN says of all."""
    own: dict[str, Any] = {**parse_url(_of_one_host(read_redis(text), ""))}
    return Pool(**options, **own | {"host": address[0], "port": address[1]})


def _of_one_host(dsn: Dsn, database: str) -> str:
    """A DSN that says all but where Redis is."""
    options = {name: value for name, value in dsn.options.items() if name not in SENTINEL_OPTIONS}
    credentials = f"{quote(dsn.user, safe='')}:{quote(dsn.password, safe='')}@" if dsn.user or dsn.password else ""
    return f"{dsn.scheme.partition('+')[0]}://{credentials}host/{database}?{urlencode(options, quote_via=quote)}"
