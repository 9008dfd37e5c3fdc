"""Liveness, readiness, start-up, and the state of the three stores and of the mail server."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Literal, get_args

import structlog
from pydantic import BaseModel

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import Reason, StoreName, StoreUnavailable
from tristore.migrations.history import History, is_current
from tristore.outbox.relay import Outbox
from tristore.stores.postgres import Postgres, pool_use

log = structlog.get_logger()

KEPT_SECONDS = 1.0
RENEWED_SECONDS = 0.6
"""The age of a report from which on whoever asks starts the next check. With 200 asking at once a check takes a quarter
of a second. So nobody has to wait for it, and no store sees two checks a second."""
BACKLOG_SECONDS = 0.2
MAIL_KEPT_SECONDS = 30.0
"""So long a mail server that has answered is not asked again: it is often somebody else's, and all processes ask."""
STORES: tuple[StoreName, ...] = get_args(StoreName)
TOLD: frozenset[Reason] = frozenset({"timeout", "not migrated", "read only", "refuses writes", "not permitted"})


class Probe(BaseModel):
    status: Literal["ok", "unavailable"]


class Check(BaseModel):
    latency_ms: float


class ReplicaCheck(BaseModel):
    serves: bool
    lag_seconds: float | None
    """How far it is behind at most. None while that is not known."""


class PostgresCheck(Check):
    pool_in_use: int
    pool_size: int
    replica: ReplicaCheck | None
    """None without POSTGRES_REPLICA_DSN."""


class RedisCheck(Check):
    breaker: Literal["open", "closed"]


class Checks(BaseModel):
    postgresql: PostgresCheck
    redis: RedisCheck
    mongodb: Check
    outbox: dict[str, int | float] | None
    mail: str | None
    """Of the mail server, in the words of `databases`. None where no mail is sent."""


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable"]
    databases: dict[StoreName, str]
    checks: Checks

    @cached_property
    def as_json(self) -> bytes:
        """Written once for all who ask for the same report."""
        return self.model_dump_json().encode()


class HealthService:
    """Each probe uses a connection of its own: a busy pool must not look like a dead store."""

    def __init__(
        self,
        *,
        postgres: Postgres,
        probes: Mapping[StoreName, Callable[[], Awaitable[None]]],
        outbox: Outbox,
        breaker: CircuitBreaker,
        revisions: History,
        timeout: float,
        mail: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """A probe returns when its store takes the service's own kind of write, and raises StoreUnavailable when it
        does not. `revisions`: the product's migrations of PostgreSQL. `timeout`: seconds that each may take. `mail`:
        the mail server's probe."""
        self._postgres = postgres
        self._probes = probes
        self._outbox = outbox
        self._breaker = breaker
        self._revisions = revisions
        self._timeout = timeout
        self._mail = mail
        self._mail_state: str | None = None
        self._mail_asked_at = -math.inf
        self._check_under_way: asyncio.Task[Health] | None = None
        self._latest: Health | None = None
        self._checked_at = -math.inf
        self._migrated = False
        self._draining = False

    async def report(self) -> Health:
        """All three stores, checked at once; concurrent callers share one check, which is kept for a second."""
        age = time.monotonic() - self._checked_at
        if age > RENEWED_SECONDS and self._check_under_way is None:
            self._check_under_way = asyncio.create_task(self._check())
            self._check_under_way.add_done_callback(self._end_check)
        if self._latest and age <= KEPT_SECONDS:
            return self._latest
        assert self._check_under_way
        return await asyncio.shield(self._check_under_way)

    async def is_ready(self) -> bool:
        """Whether to send requests here: PostgreSQL answers and is migrated, and the process is not shutting down."""
        if self._draining or not await self.has_started():
            return False
        return (await self.report()).databases["postgresql"] == "connected"

    def start_draining(self) -> None:
        """From now on, not ready."""
        self._draining = True

    async def has_started(self) -> bool:
        """Whether PostgreSQL's schema is at this release's revision or beyond. Once true, it stays true."""
        if not self._migrated:
            try:
                async with asyncio.timeout(self._timeout):
                    self._migrated = await is_current(self._postgres.probe_engine, self._revisions)
            except (StoreUnavailable, TimeoutError):
                return False
        return self._migrated

    async def close(self) -> None:
        if self._check_under_way:
            await asyncio.gather(self._check_under_way, return_exceptions=True)

    def _end_check(self, check: asyncio.Task[Health]) -> None:
        self._check_under_way = None
        if not check.cancelled() and not check.exception():
            self._latest, self._checked_at = check.result(), time.monotonic()

    async def _check(self) -> Health:
        stores = asyncio.gather(*(self._probe(self._probes[store]) for store in STORES))
        probed, mail = await asyncio.gather(stores, self._ask_mail())
        (pg_state, pg_latency), (redis_state, redis_latency), (mongo_state, mongo_latency) = probed
        outbox = await self._backlog() if pg_state == "connected" else None
        in_use, size = pool_use(self._postgres)
        up = redis_state == mongo_state == (mail or "connected") == "connected"
        return Health(
            status="unavailable" if pg_state != "connected" else "ok" if up else "degraded",
            databases={"postgresql": pg_state, "redis": redis_state, "mongodb": mongo_state},
            checks=Checks(
                postgresql=PostgresCheck(
                    latency_ms=pg_latency, pool_in_use=in_use, pool_size=size, replica=self._replica()
                ),
                redis=RedisCheck(latency_ms=redis_latency, breaker="open" if self._breaker.is_open else "closed"),
                mongodb=Check(latency_ms=mongo_latency),
                outbox=outbox,
                mail=mail,
            ),
        )

    async def _ask_mail(self) -> str | None:
        """What waits for a mail server that is down asks it itself. So nobody loses by what is kept here."""
        age = time.monotonic() - self._mail_asked_at
        if self._mail and (self._mail_state != "connected" or age > MAIL_KEPT_SECONDS):
            self._mail_state, _ = await self._probe(self._mail)
            self._mail_asked_at = time.monotonic()
        return self._mail_state

    def _replica(self) -> ReplicaCheck | None:
        if (replica := self._postgres.replica) is None:
            return None
        lag = replica.lag
        return ReplicaCheck(serves=replica.serves, lag_seconds=round(lag, 1) if math.isfinite(lag) else None)

    async def _backlog(self) -> dict[str, float] | None:
        try:
            async with asyncio.timeout(BACKLOG_SECONDS):
                return await self._outbox.backlog()
        except (StoreUnavailable, TimeoutError):
            return None

    async def _probe(self, ping: Callable[[], Awaitable[None]]) -> tuple[str, float]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                await ping()
        except TimeoutError:
            state = "error: timeout"
        except StoreUnavailable as error:
            state = f"error: {error.reason if error.reason in TOLD else 'unreachable'}"
        except Exception:
            log.exception("probe_failed")  # whatever it is, it must not take the report about the other stores with it
            state = "error: unreachable"
        else:
            state = "connected"
        return state, round((time.monotonic() - started) * 1000, 1)
