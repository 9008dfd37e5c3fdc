"""A standby of PostgreSQL that serves reads: how far it is behind, and who must not read there."""

import math
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable
from contextvars import ContextVar
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger()

POSITION = text("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
REPLAYED = text("""
SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint AS position,
       system_identifier || '.' || lpad(upper(to_hex(min_recovery_end_timeline)), 8, '0') AS lineage
FROM pg_control_system(), pg_control_recovery() WHERE pg_is_in_recovery()
""")
MARGIN_SECONDS = 2.0
"""A pin is set before its COMMIT, and a COMMIT may take as long as a request has, and a moment."""

NOBODY = UUID(int=0)
caller: ContextVar[UUID | None] = ContextVar("caller", default=None)
"""Whose request the current task serves: NOBODY's when it came without a token, None when that is not known."""


class Pins(Protocol):
    """Who has just written: see tristore/cache/pins.py."""

    async def pin(self, users: Collection[UUID], seconds: float) -> None: ...

    async def is_pinned(self, user: UUID, seconds: float) -> bool: ...


class Replica:
    """Its lag is measured by positions in the write-ahead log: what the primary had written at a moment, and it has
    replayed since. No clock of a server is asked, and an idle primary does not look like a lagging replica."""

    pins: Pins | None = None
    """Without them nobody reads there: who has just written could not be told from others."""

    def __init__(self, engine: AsyncEngine, probe_engine: AsyncEngine, max_lag: float, margin: float) -> None:
        """Seconds. What is further behind than `max_lag` is left out. A COMMIT takes no longer than `margin`."""
        self._margin = margin
        self.engine = engine
        self._probe_engine = probe_engine
        self._max_lag = max_lag
        self._samples: deque[tuple[float, int]] = deque(maxlen=math.ceil(max_lag) + 1)
        """The primary's positions, one a second."""
        self._complete_until = -math.inf
        """It has what was committed before this moment, by the monotonic clock."""
        self._lineage = ""
        self._serves = False
        self.counts: Counter[str] = Counter()
        """Of the reads that it may serve, which server was asked."""

    @property
    def lag(self) -> float:
        """Seconds that it is behind at most, as far as is known. Infinite when it is left out."""
        return time.monotonic() - self._complete_until

    @property
    def serves(self) -> bool:
        return self.lag <= self._max_lag

    def leave_out(self, cause: object) -> None:
        """Until it is looked at again."""
        self._complete_until = -math.inf
        if self._serves:
            self._serves = False
            log.warning("replica_left_out", cause=str(cause))

    async def look(self, position: int, at: float, lineage: str) -> None:
        """Compare it with what the primary of that lineage had written at that moment. Raises what SQLAlchemy and
        asyncpg raise."""
        if lineage != self._lineage:
            self._lineage = lineage
            self._samples.clear()
        self._samples.append((at, position))
        async with self._probe_engine.connect() as connection:
            replayed = (await connection.execute(REPLAYED)).one_or_none()
        if replayed is None or replayed.lineage != lineage:
            self.leave_out("it is no standby" if replayed is None else "it does not follow this primary")
            return
        replayed_at = [at for at, position in self._samples if position <= replayed.position]
        self._complete_until = replayed_at[-1] if replayed_at else -math.inf
        if self.serves and not self._serves:
            self._serves = True
            log.info("replica_serves", lag=round(self.lag, 1))
        elif not self.serves:
            self.leave_out("it is behind")

    async def pin(self, users: Iterable[UUID]) -> None:
        """Before they and the caller write: for as long as it takes, they read from the primary."""
        if self.pins and (who := {*users, caller.get()} - {NOBODY, None}):
            await self.pins.pin([user for user in who if user], self._pin_seconds)

    async def may_serve(self) -> bool:
        """Whether the caller may read here."""
        if (who := caller.get()) is None or self.pins is None or not self.serves:
            return False
        return not await self.pins.is_pinned(who, self._pin_seconds)

    @property
    def _pin_seconds(self) -> float:
        """Whoever reads here later finds what was written: what is further behind does not serve."""
        return self._max_lag + self._margin

    async def close(self) -> None:
        for engine in (self.engine, self._probe_engine):
            await engine.dispose()
