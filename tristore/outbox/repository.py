"""The outbox in PostgreSQL: record, lease, settle, and what an operator does with it. SQL: `statements.py`."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_args

import structlog
from sqlalchemy import Row, TextClause
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tristore import spans
from tristore.errors import Reason
from tristore.outbox.effects import Effect, Hopeless, NotYet, Owed, Stream
from tristore.outbox.statements import (
    BACKLOG,
    DROP,
    EFFECTS,
    HAS_WORK,
    IS_BEHIND,
    LEASE,
    LOCK,
    MAKE,
    MISCOUNTED,
    NEWEST,
    OWED,
    RECORD,
    RECOUNT,
    RETRY,
    REVIVE,
    SETTLE,
    SKIP,
    STREAMS,
    STREAMS_FOLLOWING,
    SUPERSEDE,
    SWEEP,
    WAITING,
)
from tristore.stores.postgres import Postgres, connect, translate_errors

LEASE_SECONDS = 5.0
LEASE_TIME = timedelta(seconds=LEASE_SECONDS)
AT_ONCE = 5000
"""Rows that one statement sweeps or revives."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds between attempts, doubling, with jitter
PATIENT = NotYet.__name__
"""The error of an effect that will be possible. The effect is asked again for as long as it takes, and keeps half of
its attempts for faults of its own."""
HOPELESS = f"{Hopeless.__name__} ("
"""How the error begins of an effect that will never be possible. It is parked at once."""
STUCK = 5
"""A stream is shown as stuck after so many refusals in a row although the store's probe passes, or because its first
effect is not known. With the waits and the
time-outs this takes some ten seconds: longer than a store is busy, or chooses a new primary."""
EXACT = 10_000
"""The backlog is counted up to here. Above, counting takes longer than a health check has."""
DRIVERS = (
    "AutoReconnect BulkWriteError ConnectionError ConnectionFailure DBAPIError ExecutionTimeout InterfaceError"
    " InternalError NetworkTimeout NotPrimaryError OperationFailure OperationalError OutOfMemoryError ReadOnlyError"
    " ResponseError ServerSelectionTimeoutError TimeoutError WTimeoutError WriteConcernError WriteError"
)
STORE_ERRORS = (*get_args(Reason), *DRIVERS.split())
"""The last errors of streams that earlier releases parked for a store's fault."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Leased:
    """An effect to apply while its stream is leased."""

    id: int
    name: str
    payload: str
    """JSON."""
    traceparent: str | None = None


@dataclass(frozen=True)
class StreamState:
    """A stream with work, for operators. The columns that have a name in the table mean the same here."""

    aggregate: str
    store: str
    pending: int
    attempts: int
    refusals: int
    dead: bool
    last_error: str | None
    waits_for: str | None
    due_at: datetime
    lease_until: datetime | None
    stuck: bool
    since: datetime
    """When its oldest effect was recorded."""


@dataclass(frozen=True)
class Waiting:
    """An effect that is owed, for operators."""

    id: int
    store: str
    name: str
    created_at: datetime
    payload: str
    """JSON."""


@dataclass(frozen=True)
class Outcome:
    """What became of a leased stream: the ids of what was applied, and why the next effect was not."""

    stream: Stream
    done: tuple[int, ...]
    error: str | None = None
    waits_for: str | None = None
    """The store whose fault the error is. None when it is the effect's own."""
    refused: bool = False
    """Whether that store refused although its probe passes."""
    within: float | None = None
    """Seconds after which it must be asked again at the latest."""


class Stopped(NamedTuple):
    """A stream that died, or got stuck, just now."""

    aggregate: str
    queue: str
    error: str
    is_dead: bool


class OutboxRepository:
    """`record` and `supersede` are part of their caller's transaction. Everything else is a transaction of its own, on
    the connections for background work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres, queues: Sequence[str], max_attempts: int) -> None:
        """`queues`: the names of all queues that effects may wait in."""
        self.queues = queues
        self._postgres = postgres
        self._max_attempts = max_attempts

    async def record(self, session: AsyncSession, effects: Sequence[Effect]) -> list[Owed]:
        """Write the effects, in order, and lease those streams that were empty. Raises ValueError for an effect whose
        queue nobody serves."""
        for effect in effects:
            if effect.queue not in self.queues:
                name, served = type(effect).__name__, ", ".join(self.queues)
                raise ValueError(f"{name} waits in the queue {effect.queue!r}, but the outbox serves only {served}.")
        token = uuid.uuid4()
        parameters = {
            "aggregates": [effect.aggregate for effect in effects],
            "stores": [effect.queue for effect in effects],
            "names": [type(effect).__name__ for effect in effects],
            "payloads": [effect.model_dump_json() for effect in effects],
            "delays": [effect.delay for effect in effects],
            "traceparent": spans.traceparent(),
            "token": token,
            "lease": LEASE_TIME,
        }
        rows = (await session.execute(RECORD, parameters)).all()
        return [
            Owed(row.id, effect, Stream(effect.aggregate, effect.queue, token) if row.mine else None)
            for row, effect in zip(rows, effects, strict=True)
        ]

    async def supersede(self, session: AsyncSession, aggregate: str) -> None:
        """Drop what is still owed to an aggregate, with every lease and failure, so that nothing stands in the way of
        what comes next."""
        for statement in (SUPERSEDE, DROP):
            await session.execute(statement, {"aggregate": aggregate, "queues": self.queues})

    async def lease(self, queue: str, streams: int, effects: int) -> dict[Stream, list[Leased]]:
        """Take up to `streams` due streams of a queue, each with up to `effects` of its first effects in order. Those
        with a delay come only when their time has come, and last. A stream may come without effects: what it holds was
        committed after this statement's snapshot, or its delay has not begun. Settle such a stream as well: then it is
        due when it has something to apply."""
        token = uuid.uuid4()
        limits = {"store": queue, "streams": streams, "effects": effects, "token": token, "lease": LEASE_TIME}
        leased: dict[Stream, list[Leased]] = {}
        for row in await self._execute(LEASE, limits):
            effects_of = leased.setdefault(Stream(row.aggregate, queue, token), [])
            if row.id is not None:
                effects_of.append(Leased(row.id, row.name, row.payload, row.traceparent))
        return leased

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Stopped]:
        """Remove what was applied and end the leases. Returns the streams that died or got stuck by this. A stream
        whose count is wrong is recounted, and holds up no other."""
        try:
            return await self._settle(outcomes)
        except IntegrityError:
            if len(outcomes) == 1:
                await self._mend(outcomes[0].stream)
                return await self._settle(outcomes)
        return [stopped for outcome in outcomes for stopped in await self.settle([outcome])]

    async def _settle(self, outcomes: Sequence[Outcome]) -> list[Stopped]:
        streams = [outcome.stream for outcome in outcomes]
        parameters = {
            "aggregates": [stream.aggregate for stream in streams],
            "stores": [stream.queue for stream in streams],
            "tokens": [stream.token for stream in streams],
            "errors": [outcome.error for outcome in outcomes],
            "waits": [outcome.waits_for for outcome in outcomes],
            "refused": [outcome.refused for outcome in outcomes],
            "withins": [outcome.within for outcome in outcomes],
            "ids": [id_ for outcome in outcomes for id_ in outcome.done],
            "max_attempts": self._max_attempts,
            "patient": PATIENT,
            "hopeless": HOPELESS,
            "stuck": STUCK,
            "first": FIRST_DELAY,
            "longest": LONGEST_DELAY,
        }
        rows = await self._execute(SETTLE, parameters)
        return [Stopped(row.aggregate, row.store, row.last_error, row.dead) for row in rows]

    async def _mend(self, stream: Stream) -> None:
        log.error("outbox_stream_recounted", aggregate=stream.aggregate, store=stream.queue)
        await self.recount(stream.aggregate, stream.queue)

    async def recount(self, aggregate: str, queue: str) -> int:
        """Let a stream count its effects; make the stream if it is missing. Returns how many there are."""
        with translate_errors():
            async with self._postgres.engine.begin() as connection:
                for statement in (MAKE, LOCK, RECOUNT):  # the last sees what was committed while another waited
                    result = await connection.execute(statement, {"aggregate": aggregate, "store": queue})
                return int(result.scalar_one())

    async def sweep(self) -> None:
        """Delete the rows of empty streams."""
        while len(await self._execute(SWEEP, {"limit": AT_ONCE})) == AT_ONCE:
            pass

    async def revive(self, store: str, queues: Sequence[str]) -> None:
        """Make due what waits for a store, and what earlier releases have parked in these queues for a store's
        fault."""
        parameters = {"store": store, "queues": queues, "errors": STORE_ERRORS, "limit": AT_ONCE}
        while len(await self._execute(REVIVE, parameters)) == AT_ONCE:
            pass

    async def are_owed(self, ids: Sequence[int]) -> bool:
        """Whether any of these effects is not known to be applied."""
        return bool(await self._execute(OWED, {"ids": ids}))

    async def newest(self) -> int:
        """The id of the newest effect that is owed, 0 when there is none."""
        return int((await self._execute(NEWEST, {}))[0].id)

    async def is_behind(self, queue: str, newest: int) -> bool:
        """Whether anything up to this id still waits in a queue. What is dead or has a delay does not count."""
        return bool(await self._execute(IS_BEHIND, {"store": queue, "newest": newest}))

    async def has_work(self) -> bool:
        """Whether anything is owed in a stream that is neither dead nor stuck."""
        return bool(await self._execute(HAS_WORK, {"stuck": STUCK}))

    async def backlog(self) -> dict[str, float]:
        """`backlog` counts effects: exactly up to 10,000. Above that it is PostgreSQL's own running estimate, which is
        some seconds behind and starts anew after a crash. `dead` and `stuck` count streams, `parked` the effects of
        dead streams, each among the first 10,000 streams of its kind. `attempts` is the most of any stream,
        `oldest_seconds` the age of the oldest effect. It takes as long with a million rows as with ten thousand. Uses
        the connection of the health probe."""
        with translate_errors():
            async with self._postgres.probe_engine.connect() as connection:
                row = (await connection.execute(BACKLOG, {"exact": EXACT, "stuck": STUCK})).one()
        counts = {name: int(row._mapping[name]) for name in ("backlog", "dead", "stuck", "parked", "attempts")}
        if counts["backlog"] > EXACT:
            counts["backlog"] = max(counts["backlog"], int(row.estimate))
        return {**counts, "oldest_seconds": round(float(row.oldest_seconds), 1)}

    async def streams(self, *, dead_only: bool, limit: int = 100) -> list[StreamState]:
        """Streams with work: dead ones first, then stuck ones, then oldest first."""
        rows = await self._execute(STREAMS, {"dead_only": dead_only, "limit": limit, "stuck": STUCK})
        return [StreamState(**row._mapping) for row in rows]

    async def effects(self, aggregate: str) -> list[Waiting]:
        """The first effects that an aggregate is owed, in order, payloads included."""
        return [Waiting(**row._mapping) for row in await self._execute(EFFECTS, {"aggregate": aggregate})]

    async def retry(self, aggregate: str | None, queue: str | None) -> int:
        """Make streams due now, with all attempts before them: those of one aggregate, or (None) all that have failed;
        those in one queue, or (None) in all. Returns how many. Leased streams are left alone."""
        return len(await self._execute(RETRY, {"aggregate": aggregate, "store": queue}))

    async def skip(self, aggregate: str, queue: str) -> int | None:
        """Drop the first effect of a dead or stuck stream and go on with the next. Returns its id, or None when the
        stream is neither, or is being tried right now."""
        rows = await self._execute(SKIP, {"aggregate": aggregate, "store": queue, "stuck": STUCK})
        return rows[0].id if rows else None

    async def streams_following(self, aggregate: str, queue: str, limit: int) -> Sequence[Row[Any]]:
        """The names of up to `limit` streams that come after this one, also of those that only effects name."""
        return await self._execute(STREAMS_FOLLOWING, {"aggregate": aggregate, "store": queue, "limit": limit})

    async def miscounted(self, streams: Sequence[tuple[str, str]]) -> Sequence[Row[Any]]:
        """Those of these, by aggregate and queue, whose `pending` is not the number of their `effects`."""
        names = {"aggregates": [stream[0] for stream in streams], "stores": [stream[1] for stream in streams]}
        return await self._execute(MISCOUNTED, names)

    async def waiting(self, aggregates: Sequence[str]) -> set[str]:
        """Those of these that anything is owed to, also what has a delay, and what is parked."""
        return {row.aggregate for row in await self._execute(WAITING, {"aggregates": aggregates})}

    async def _execute(self, statement: TextClause, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        async with connect(self._postgres.background) as connection:
            return (await connection.execute(statement, parameters)).all()
