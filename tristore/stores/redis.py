"""Redis: speed. Its clients, the identity of the server behind them, and its health probe."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tristore import spans
from tristore.settings import TristoreSettings
from tristore.stores.dsn import addresses, is_cluster, read_redis
from tristore.stores.redis_cluster import Address, Cluster, RoutingClient
from tristore.stores.redis_cluster import ServerIdentity as ServerIdentity
from tristore.stores.redis_errors import translate_errors as translate_errors
from tristore.stores.redis_pool import SentinelPool, pool_for, pool_to, replace_connections
from tristore.stores.watched import WatchedRedis

# A sorted set of who sent a heartbeat, by the server's clock in milliseconds. It keeps five seconds.
CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
RETURNS = "wake-ups:returns"
"""A key with a word that is another one after each time that a server came back as it had been left."""
# Whether the data is still of the history that the caller knows: a server that is demoted and promoted begins another
# one, and may keep its connections. It may have come back with what it had when it was the primary before. Behind the
# history's first part stands the epoch of the server's slots, in a cluster, or else the word above.
SAME_HISTORY = f"""
local function is_same(history)
  if history == '' then return true end
  local replid, more = string.match(history, '^([^-]*)%-?(.*)$')
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' and not string.find(info, 'master_replid:' .. replid, 1, true) then return false end
  if not string.find(more, '^%d+$') then return (redis.pcall('GET', '{RETURNS}') or '') == more end
  local told = redis.pcall('CLUSTER', 'INFO')
  return type(told) == 'string' and string.find(told, 'cluster_my_epoch:' .. more .. '\\r', 1, true)
end
"""
HEARTBEAT = f"""{CLOCK}{SAME_HISTORY}
if not is_same(ARGV[4]) then return -1 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 5000)
redis.call('PEXPIRE', KEYS[1], 5000)
return redis.call('PUBLISH', ARGV[2], ARGV[3])
"""
BEATING = f"""{CLOCK}
return redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')
"""

PORT = 6379
LATE_SECONDS, TIMES_MORE = 0.02, 4
"""When the event loop comes so late, it may not be Redis that was slow; how often one then gets its time again."""


@dataclass(frozen=True)
class RedisStore:
    """One server, or a cluster. The clients of a cluster take commands of one key each; what asks for more goes to its
    servers, each of which is a RedisStore."""

    client: Redis
    probe: Redis
    subscriber: Redis
    timeout: float
    """Seconds that one operation may take, the wait for a pooled connection included."""
    identity: ServerIdentity = field(default_factory=ServerIdentity)
    raise_unknown: bool = False
    """Let a refusal that no table has pass. In tests: it may be our own bug, which must not be served around."""
    cluster: "Cluster[RedisStore] | None" = None

    @property
    def history(self) -> str:
        """Of all that it holds."""
        return self.cluster.history if self.cluster else self.identity.history

    async def aclose(self) -> None:
        if self.cluster:
            await self.cluster.close()
        for client in (self.client, self.probe, self.subscriber):
            await client.aclose()


@asynccontextmanager
async def open_redis(settings: TristoreSettings) -> AsyncIterator[RedisStore]:
    """Open the client; connects on first use. Closes every connection at the end."""
    dsn = settings.dsn("redis_dsn")
    store = _open_cluster(settings, dsn) if is_cluster(read_redis(dsn)) else _open_server(settings, _pools(dsn))
    try:
        yield store
    finally:
        await store.aclose()


Pools = Callable[..., BlockingConnectionPool]


def _pools(dsn: str, address: Address | None = None) -> Pools:
    return lambda **options: pool_to(address, dsn, **options) if address else pool_for(dsn, **options)


def _open_cluster(settings: TristoreSettings, dsn: str) -> RedisStore:
    # As long as the map holds. A server is asked on a connection of its own: a busy pool is no lost one.
    timeout = settings.redis_timeout * (1 + TIMES_MORE)

    def open_client(address: Address) -> Redis:
        return _client(settings, _pools(dsn, address), "cluster", 1, timeout=timeout)

    def open_server(address: Address, identity: ServerIdentity) -> RedisStore:
        return _open_server(settings, _pools(dsn, address), identity)

    seeds = addresses(read_redis(dsn).hosts, PORT)
    cluster = Cluster(seeds, open_server=open_server, open_client=open_client)
    client = RoutingClient(cluster)
    raise_unknown = settings.environment == "test"
    return RedisStore(client, client, client, settings.redis_timeout, raise_unknown=raise_unknown, cluster=cluster)


def _open_server(settings: TristoreSettings, pools: Pools, known: ServerIdentity | None = None) -> RedisStore:
    identity = known or ServerIdentity()

    async def on_connect(connection: AbstractConnection) -> None:
        await connection.on_connect()
        told = await _ask(connection, "INFO", "replication")
        if told["role"] != "master":
            raise exceptions.ReadOnlyError(f"READONLY its role is {told['role']}")
        if identity.node:
            more = (await _ask(connection, "CLUSTER", "INFO"))["cluster_my_epoch"]
        else:
            more = await _returns(connection, identity, told["master_replid"])
        identity.learn(connection, _history(told["master_replid"], more))

    def client(role: str, max_connections: int) -> Redis:
        return _client(settings, pools, role, max_connections, redis_connect_func=on_connect, is_of_now=identity.is_of)

    return RedisStore(
        client("app", settings.redis_max_connections),
        client("probe", 1),
        client("subscriber", 2),  # one hears, the other sends the heartbeats
        settings.redis_timeout,
        identity,
        settings.environment == "test",
    )


def _client(settings: TristoreSettings, pools: Pools, role: str, max_connections: int, **more: object) -> Redis:
    options = {
        "timeout": settings.redis_timeout * 0.6,  # shorter than the whole, so that an empty pool can say so
        "socket_timeout": settings.redis_timeout * (1 + TIMES_MORE),  # `within_timeout` is stricter
        "socket_connect_timeout": settings.redis_timeout * (1 + TIMES_MORE),
        # Once, and only for a connection that the server has closed: a restarted one is not a server that is down.
        # A timeout is not repeated: that would double what an outage costs.
        "retry": Retry(NoBackoff(), 1, (exceptions.ConnectionError,)),
    }
    name = f"{settings.app_name}-{role}"
    kind = WatchedRedis if spans.are_on() else Redis
    return kind.from_pool(pools(max_connections=max_connections, client_name=name, **options | more))


def _history(replid: str, more: str) -> str:
    return f"{replid}-{more}" if more else replid


async def _returns(connection: AbstractConnection, identity: ServerIdentity, replid: str) -> str:
    """The word of a server. Whoever had left it gives it another one: an old primary that takes its place again before
    it was made a replica has its `master_replid` still, and what it held when it was left."""
    word = await _say(connection, "GET", RETURNS)
    if identity.has_left(_history(replid, word)):
        word = f"f{secrets.token_hex(8)}"  # no number, as an epoch is
        await _say(connection, "SET", RETURNS, word)
    return word


async def _say(connection: AbstractConnection, *command: str) -> str:
    """Its answer. Empty when there is none."""
    await connection.send_command(*command)
    answer = await connection.read_response()
    return answer.decode() if isinstance(answer, bytes) else str(answer or "")


async def _ask(connection: AbstractConnection, *command: str) -> dict[str, str]:
    text = await _say(connection, *command)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def beat(client: Redis, key: str, sender: str, channel: str, message: str, history: str = "") -> bool:
    """Note the sender in that key and publish, in one step: what a Redis that serves us must take. False, and nothing
    done, when it has another history by now. Raises the driver's errors."""
    heard: int = await client.register_script(HEARTBEAT)(keys=[key], args=[sender, channel, message, history])
    return heard >= 0


async def learn_history(redis: RedisStore) -> None:
    """Leave the connections from before, and ask on a new one: of one server. Raises the driver's errors."""
    for client in (redis.client, redis.probe, redis.subscriber):
        await replace_connections(client.connection_pool)
    await redis.client.ping()


async def is_of_primary(redis: RedisStore) -> bool:
    """Whether the Sentinels, if there are any, still name the server that heartbeats go to. Raises the driver's
    errors."""
    pool = redis.subscriber.connection_pool
    return not isinstance(pool, SentinelPool) or await pool.is_of_primary()


async def beating(client: Redis, key: str, seconds: float) -> set[str]:
    """Who sent a heartbeat within the last seconds, five at most. Raises the driver's errors."""
    senders = await client.register_script(BEATING)(keys=[key], args=[round(seconds * 1000)])
    return {sender.decode() for sender in senders}


async def ping(redis: RedisStore) -> None:
    """Whether it takes a write and a message, asked on the probe's own connection. Raises StoreUnavailable."""
    with translate_errors():
        servers = await redis.cluster.confirmed() if redis.cluster else [redis]
        for server in servers:
            await beat(server.probe, server.identity.key("probes"), "probe", server.identity.channel("probes"), "")


def pool_use(redis: RedisStore) -> tuple[int, int]:
    """Connections in use, and what the pool holds at most: in a cluster those to all servers."""
    used, size = 0, 0
    for server in redis.cluster.servers if redis.cluster else [redis]:
        pool = server.client.connection_pool
        counts = {attributes["db.client.connection.state"]: count for count, attributes in pool.get_connection_count()}
        used, size = used + counts["used"], size + pool.max_connections
    return used, size


@asynccontextmanager
async def within_timeout(redis: RedisStore) -> AsyncIterator[None]:
    """Bound the time of one operation, and translate its errors. The event loop may be what is late, for example with
    a thousand requests in it: the answer is here, and not yet read. Then the operation gets its time again, up to
    TIMES_MORE times. A breaker that opened for this would send all those requests to PostgreSQL. Raises
    StoreUnavailable."""
    with translate_errors(raise_unknown=redis.raise_unknown):
        async with asyncio.timeout(None) as scope:
            deadline = _Deadline(scope, redis.timeout)
            try:
                yield
            finally:
                deadline.timer.cancel()


class _Deadline:
    """A class, because a function that sets the timer for itself refers to itself: garbage after each operation."""

    def __init__(self, scope: asyncio.Timeout, seconds: float) -> None:
        self._scope = scope
        self._seconds = seconds
        self._start(TIMES_MORE)

    def _start(self, times_more: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        self.timer = loop.call_at(due, self._end_unless_late, loop, due, times_more)

    def _end_unless_late(self, loop: asyncio.AbstractEventLoop, due: float, times_more: int) -> None:
        if times_more and loop.time() - due > LATE_SECONDS:
            self._start(times_more - 1)
        else:
            self._scope.reschedule(loop.time())
