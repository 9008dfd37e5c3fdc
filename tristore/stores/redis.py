"""Redis: speed. Client, identity of the server behind it, health probe, and what its driver's errors mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tristore.errors import Reason
from tristore.settings import TristoreSettings
from tristore.stores.translation import Verdict, by_code, translating

# The first word of the server's reply -> why it did not serve us. What is not here is unknown, or our own fault, such
# as ERR and WRONGTYPE: nobody can tell the two apart, and without the cache all goes on.
CODES: dict[str, Reason] = by_code(
    {
        # It still reads its data or has lost its primary; or the DSN is wrong: no password, or a cluster's node.
        "unreachable": "LOADING MASTERDOWN CLUSTERDOWN MOVED ASK CROSSSLOT NOAUTH WRONGPASS DENIED NOPROTO",
        "timeout": "BUSY",  # a script runs, for as long as it likes
        "busy": "TRYAGAIN NOSCRIPT",
        "read only": "READONLY",
        "refuses writes": "MISCONF NOREPLICAS OOM",
        "not permitted": "NOPERM",
    }
)
# What has no code that we know, along the error's MRO. None: the caller's own fault, not translated.
REASONS: dict[type[BaseException], Verdict] = {
    exceptions.ConnectionError: "unreachable",
    exceptions.MaxConnectionsError: "busy",
    exceptions.TimeoutError: "timeout",
    exceptions.InvalidResponse: "unreachable",  # no Redis
    exceptions.ResponseError: "unknown",
    exceptions.RedisError: None,
    TimeoutError: "timeout",
    OSError: "unreachable",
}
REFUSED_IN_SCRIPT = "ACL failure in script"
"""So Redis words a NOPERM that a script met; the code is ERR."""

HEARTBEAT = """
redis.call('SET', KEYS[1], '1', 'PX', 5000)
return redis.call('PUBLISH', ARGV[1], ARGV[2])
"""

LATE_SECONDS, TIMES_MORE = 0.02, 4
"""When the event loop comes so late, it may not be Redis that was slow; how often one then gets its time again."""


@dataclass
class ServerIdentity:
    """`run_id` of the Redis process that the newest connection leads to. A restart changes it."""

    run_id: str = ""


@dataclass(frozen=True)
class RedisStore:
    client: Redis
    probe: Redis
    subscriber: Redis
    timeout: float
    """Seconds that one operation may take, the wait for a pooled connection included."""
    identity: ServerIdentity = field(default_factory=ServerIdentity)
    raise_unknown: bool = False
    """Let a refusal that no table has pass. In tests: it may be our own bug, which must not be served around."""


@asynccontextmanager
async def open_redis(settings: TristoreSettings) -> AsyncIterator[RedisStore]:
    """Open the client; connects on first use. Closes every connection at the end."""
    identity = ServerIdentity()

    async def on_connect(connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        identity.run_id = _run_id(await connection.read_response())

    def client(role: str, max_connections: int) -> Redis:
        pool = BlockingConnectionPool(
            max_connections=max_connections,
            timeout=settings.redis_timeout * 0.6,  # shorter than the whole, so that an empty pool can say so
            socket_timeout=settings.redis_timeout * (1 + TIMES_MORE),  # `within_timeout` is stricter
            socket_connect_timeout=settings.redis_timeout * (1 + TIMES_MORE),
            # Once, and only for a connection that the server has closed: a restarted one is not a server that is down.
            # A timeout is not repeated: that would double what an outage costs.
            retry=Retry(NoBackoff(), 1, (exceptions.ConnectionError,)),
            client_name=f"{settings.app_name}-{role}",
            redis_connect_func=on_connect,
            **parse_url(settings.dsn("redis_dsn")),
        )
        return Redis.from_pool(pool)

    store = RedisStore(
        client("app", settings.redis_max_connections),
        client("probe", 1),
        client("subscriber", 2),  # one hears, the other sends the heartbeats
        settings.redis_timeout,
        identity,
        settings.environment == "test",
    )
    try:
        yield store
    finally:
        await store.client.aclose()
        await store.probe.aclose()
        await store.subscriber.aclose()


def _run_id(info: Any) -> str:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("run_id:"))


async def beat(client: Redis, channel: str, message: str) -> None:
    """Write a key and publish, in one step: what a Redis that serves us must take. Raises the driver's errors."""
    await client.register_script(HEARTBEAT)(keys=["heartbeat"], args=[channel, message])


async def ping(redis: RedisStore) -> None:
    """Whether it takes a write and a message, asked on the probe's own connection. Raises StoreUnavailable."""
    with translate_errors():
        await beat(redis.probe, "heartbeat", "")


def pool_use(redis: RedisStore) -> tuple[int, int]:
    """Connections in use, and what the pool holds at most."""
    pool = redis.client.connection_pool
    counts = {attributes["db.client.connection.state"]: count for count, attributes in pool.get_connection_count()}
    return counts["used"], pool.max_connections


@asynccontextmanager
async def within_timeout(redis: RedisStore) -> AsyncIterator[None]:
    """Bound one operation in all, and translate its errors. When it is the event loop that comes late, because of a
    thousand requests in it, the answer may be here and not yet read: then the operation gets its time once more, up to
    TIMES_MORE times. A breaker that opened for this would send all of them to PostgreSQL. Raises StoreUnavailable."""
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


def translate_errors(*, raise_unknown: bool = False) -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("redis", reason_of, cause_of, raise_unknown=raise_unknown)


def reason_of(error: BaseException) -> Verdict:
    """Why Redis was not available, or None when the error is not about that."""
    if type(error) is exceptions.ConnectionError and isinstance(error.__cause__, TimeoutError):
        return "busy"  # how BlockingConnectionPool says that no connection became free
    if reason := CODES.get(_code(error)):
        return reason
    return next((REASONS[cls] for cls in type(error).__mro__ if cls in REASONS), None)


def cause_of(error: BaseException) -> str:
    """What operators are told: the first word of the server's reply, else the name of the driver's error."""
    return _code(error) or type(error).__name__


def _code(error: BaseException) -> str:
    if not isinstance(error, exceptions.RedisError):
        return ""
    if str(error).startswith(REFUSED_IN_SCRIPT):
        return "NOPERM"
    # redis-py takes the word off the text where it has a class for it. A text of its own begins in another way.
    word = error.status_code or str(error).partition(" ")[0]
    return word if word.isalpha() and word.isupper() else ""
