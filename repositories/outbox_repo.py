"""The outbox in PostgreSQL: record, lease, settle, and what an operator does with it. Time is PostgreSQL's."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from database.postgres import Postgres, translate_errors
from models.outbox import Effect, Owed, Stream, TargetStore

LEASE_SECONDS = 5.0
LEASE_TIME = timedelta(seconds=LEASE_SECONDS)
SWEPT_AT_ONCE = 5000
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds between attempts, doubling, with jitter
PATIENT = "NotYet"
"""The error of an effect that will be possible (services/effects.py): it is asked again for as long as it takes, and
keeps half of its attempts for faults of its own."""

# The streams' rows are locked before the effects get their ids, so within a stream ids follow the order of commits.
# Ordered, so that two transactions that add to the same streams cannot deadlock.
RECORD = text("""
WITH owed AS (
  SELECT * FROM unnest(CAST(:aggregates AS text[]), CAST(:stores AS text[]), CAST(:names AS text[]),
                       CAST(:payloads AS jsonb[]), CAST(:delays AS float[]))
    WITH ORDINALITY AS o (aggregate, store, name, payload, delay, position)
), streams AS (
  INSERT INTO outbox_streams AS s (aggregate, store, pending, due_at, lease_until, lease_token)
  SELECT aggregate, store, count(*),
    clock_timestamp() + CASE WHEN max(delay) > 0 THEN make_interval(secs => max(delay)) ELSE :lease END,
    CASE WHEN max(delay) > 0 THEN NULL ELSE clock_timestamp() + :lease END,
    CASE WHEN max(delay) > 0 THEN NULL ELSE CAST(:token AS uuid) END
  FROM owed GROUP BY aggregate, store ORDER BY aggregate, store
  ON CONFLICT (aggregate, store) DO UPDATE SET
    pending = s.pending + excluded.pending,
    due_at = CASE WHEN s.pending = 0 THEN excluded.due_at ELSE s.due_at END,
    lease_until = CASE WHEN s.pending = 0 THEN excluded.lease_until ELSE s.lease_until END,
    lease_token = CASE WHEN s.pending = 0 THEN excluded.lease_token ELSE s.lease_token END
  RETURNING aggregate, store, lease_token = CAST(:token AS uuid) AS mine
), recorded AS (
  INSERT INTO outbox (aggregate, store, name, payload)
  SELECT aggregate, store, name, payload FROM owed JOIN streams USING (aggregate, store) ORDER BY position
  RETURNING id, aggregate, store
)
SELECT id, coalesce(mine, false) AS mine FROM recorded JOIN streams USING (aggregate, store) ORDER BY id
""")

# A lease moves due_at to its end: the poll needs one index, and a lease that was left behind runs out by itself.
LEASE = text("""
WITH due AS (
  SELECT aggregate, store FROM outbox_streams
  WHERE store = :store AND due_at <= clock_timestamp() AND pending > 0 AND NOT dead
  ORDER BY due_at LIMIT :streams FOR UPDATE SKIP LOCKED
), leased AS (
  UPDATE outbox_streams s
  SET lease_token = CAST(:token AS uuid), lease_until = clock_timestamp() + :lease, due_at = clock_timestamp() + :lease
  FROM due WHERE s.aggregate = due.aggregate AND s.store = due.store
  RETURNING s.aggregate, s.store
)
SELECT e.id, l.aggregate, e.name, e.payload FROM leased l LEFT JOIN LATERAL (
  SELECT id, name, CAST(payload AS text) FROM outbox o WHERE o.aggregate = l.aggregate AND o.store = l.store
  ORDER BY id LIMIT :effects
) e ON true ORDER BY e.id
""")

# Whoever has lost the lease changes nothing. `pending` is counted on the locked row itself: an effect that was added
# after this statement's snapshot is in it, so a stream is never taken for empty by mistake.
SETTLE = text("""
WITH outcome AS (
  SELECT * FROM unnest(CAST(:aggregates AS text[]), CAST(:stores AS text[]), CAST(:tokens AS uuid[]),
                       CAST(:errors AS text[])) AS o (aggregate, store, token, error)
), mine AS MATERIALIZED (
  SELECT s.aggregate, s.store FROM outbox_streams s JOIN outcome o USING (aggregate, store)
  WHERE s.lease_token = o.token ORDER BY s.aggregate, s.store FOR UPDATE OF s
), removed AS (
  DELETE FROM outbox e USING mine WHERE e.aggregate = mine.aggregate AND e.store = mine.store
  AND e.id = ANY(CAST(:ids AS bigint[])) RETURNING e.aggregate, e.store
), done AS (
  SELECT o.aggregate, o.store, o.token, o.error, (SELECT count(*) FROM removed r
    WHERE r.aggregate = o.aggregate AND r.store = o.store) AS n FROM outcome o JOIN mine USING (aggregate, store)
), settled AS (
  UPDATE outbox_streams s SET
    pending = s.pending - n, lease_token = NULL, lease_until = NULL, last_error = error,
    attempts = least(CASE WHEN error IS NOT NULL THEN 1 ELSE 0 END + CASE WHEN n = 0 THEN s.attempts ELSE 0 END,
      CASE WHEN error = :patient THEN :max_attempts / 2 END),
    dead = coalesce(error <> :patient, false) AND n = 0 AND s.attempts + 1 >= :max_attempts,
    due_at = clock_timestamp() + CASE WHEN error IS NULL THEN interval '0' ELSE make_interval(secs =>
      least(:longest, :first * 2 ^ CASE WHEN n = 0 THEN least(s.attempts, 20) ELSE 0 END) * (0.5 + random() / 2)) END
  FROM done WHERE s.aggregate = done.aggregate AND s.store = done.store AND s.lease_token = done.token
  RETURNING s.aggregate, s.store, s.dead, s.last_error
)
SELECT aggregate, store, last_error FROM settled WHERE dead
""")
"""A release without an error counts no attempt: the store was down, or the lease ran out."""

SWEEP = text("""
DELETE FROM outbox_streams WHERE (aggregate, store) IN (
  SELECT aggregate, store FROM outbox_streams WHERE pending = 0 AND due_at < clock_timestamp() - interval '1 second'
  ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING store
""")

# The streams' rows first, in the order in which everybody locks them. Whoever holds a lease finds it gone.
SUPERSEDE = text("""
WITH streams AS MATERIALIZED (
  SELECT aggregate, store FROM outbox_streams WHERE aggregate = :aggregate ORDER BY store FOR UPDATE
), emptied AS (
  UPDATE outbox_streams s SET pending = 0, attempts = 0, dead = false, lease_token = NULL, lease_until = NULL,
    last_error = NULL FROM streams WHERE s.aggregate = streams.aggregate AND s.store = streams.store
)
DELETE FROM outbox e USING streams WHERE e.aggregate = streams.aggregate AND e.store = streams.store
""")

BACKLOG = text("""
SELECT (SELECT count(*) FROM outbox) AS backlog,
       (SELECT count(*) FROM outbox_streams WHERE dead) AS dead,
       (SELECT coalesce(sum(pending), 0) FROM outbox_streams WHERE dead) AS parked,
       (SELECT coalesce(max(attempts), 0) FROM outbox_streams WHERE attempts > 0) AS attempts,
       coalesce(extract(epoch FROM clock_timestamp() - (SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0)
         AS oldest_seconds
""")

STREAMS = text("""
SELECT s.aggregate, s.store, s.pending, s.attempts, s.dead, s.last_error, s.due_at, s.lease_until,
       (SELECT min(created_at) FROM outbox e WHERE e.aggregate = s.aggregate AND e.store = s.store) AS since
FROM outbox_streams s WHERE s.pending > 0 AND (s.dead OR NOT :dead_only) ORDER BY s.dead DESC, since LIMIT :limit
""")

EFFECTS = text("""
SELECT id, store, name, created_at, CAST(payload AS text) FROM outbox WHERE aggregate = :aggregate ORDER BY id LIMIT 100
""")

RETRY = text("""
UPDATE outbox_streams SET dead = false, attempts = 0, due_at = clock_timestamp()
WHERE aggregate = :aggregate AND store = :store AND pending > 0
  AND (lease_until IS NULL OR lease_until < clock_timestamp()) RETURNING store
""")

# Only a dead stream can be skipped: nobody is about to apply its first effect.
SKIP = text("""
WITH stream AS (
  UPDATE outbox_streams SET dead = false, attempts = 0, due_at = clock_timestamp(), pending = pending - 1
  WHERE aggregate = :aggregate AND store = :store AND dead RETURNING aggregate, store
)
DELETE FROM outbox WHERE id = (SELECT min(id) FROM outbox JOIN stream USING (aggregate, store)) RETURNING id
""")


@dataclass(frozen=True)
class Leased:
    """An effect to apply, under the lease of its stream."""

    id: int
    name: str
    payload: str
    """JSON."""


@dataclass(frozen=True)
class Outcome:
    """What became of a leased stream: the ids that were applied, and why the next one was not, if by its own fault."""

    stream: Stream
    done: tuple[int, ...]
    error: str | None = None


class OutboxRepository:
    """`record` and `supersede` are part of their caller's transaction; everything else is a transaction of its own, on
    the connections kept for background work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres, max_attempts: int) -> None:
        self._postgres = postgres
        self._max_attempts = max_attempts

    async def record(self, session: AsyncSession, effects: Sequence[Effect]) -> list[Owed]:
        """Write the effects, in order, and lease those streams that were empty."""
        token = uuid.uuid4()
        parameters = {
            "aggregates": [effect.aggregate for effect in effects],
            "stores": [effect.store for effect in effects],
            "names": [type(effect).__name__ for effect in effects],
            "payloads": [effect.model_dump_json() for effect in effects],
            "delays": [effect.delay for effect in effects],
            "token": token,
            "lease": LEASE_TIME,
        }
        rows = (await session.execute(RECORD, parameters)).all()
        return [
            Owed(row.id, effect, Stream(effect.aggregate, effect.store, token) if row.mine else None)
            for row, effect in zip(rows, effects, strict=True)
        ]

    async def supersede(self, session: AsyncSession, aggregate: str) -> None:
        """Drop what an aggregate is still owed, and whatever lease or failure stands in the way of what comes next."""
        await session.execute(SUPERSEDE, {"aggregate": aggregate})

    async def lease(self, store: TargetStore, streams: int, effects: int) -> dict[Stream, list[Leased]]:
        """Take up to `streams` due streams of a store, each with up to `effects` of its first effects in order. One may
        come without any: they were committed after this statement's snapshot."""
        token = uuid.uuid4()
        limits = {"store": store, "streams": streams, "effects": effects, "token": token, "lease": LEASE_TIME}
        leased: dict[Stream, list[Leased]] = {}
        for row in await self._execute(LEASE, limits):
            effects_of = leased.setdefault(Stream(row.aggregate, store, token), [])
            if row.id is not None:
                effects_of.append(Leased(row.id, row.name, row.payload))
        return leased

    async def settle(self, outcomes: Sequence[Outcome]) -> list[tuple[str, str, str]]:
        """Remove what was applied and end the leases. Returns aggregate, store and error of streams that died now."""
        streams = [outcome.stream for outcome in outcomes]
        parameters = {
            "aggregates": [stream.aggregate for stream in streams],
            "stores": [stream.store for stream in streams],
            "tokens": [stream.token for stream in streams],
            "errors": [outcome.error for outcome in outcomes],
            "ids": [id_ for outcome in outcomes for id_ in outcome.done],
            "max_attempts": self._max_attempts,
            "patient": PATIENT,
            "first": FIRST_DELAY,
            "longest": LONGEST_DELAY,
        }
        return [(row.aggregate, row.store, row.last_error) for row in await self._execute(SETTLE, parameters)]

    async def sweep(self) -> None:
        """Delete the rows of empty streams."""
        while len(await self._execute(SWEEP, {"limit": SWEPT_AT_ONCE})) == SWEPT_AT_ONCE:
            pass

    async def are_owed(self, ids: Sequence[int]) -> bool:
        """Whether any of these effects is not known to be applied."""
        query = text("SELECT 1 FROM outbox WHERE id = ANY(:ids) LIMIT 1")
        return bool(await self._execute(query, {"ids": ids}))

    async def backlog(self) -> dict[str, float]:
        """`backlog` in effects, `dead` in streams, `parked` in effects of dead streams, `attempts` (the most of any
        stream), `oldest_seconds`. Uses the connection of the health probe."""
        with translate_errors():
            async with self._postgres.probe_engine.connect() as connection:
                row = (await connection.execute(BACKLOG)).one()
        counts = {name: int(value) for name, value in row._mapping.items() if name != "oldest_seconds"}
        return {**counts, "oldest_seconds": round(float(row.oldest_seconds), 1)}

    async def streams(self, *, dead_only: bool, limit: int = 100) -> Sequence[Row[Any]]:
        """Streams with work: dead ones first, then oldest first."""
        return await self._execute(STREAMS, {"dead_only": dead_only, "limit": limit})

    async def effects(self, aggregate: str) -> Sequence[Row[Any]]:
        """The first effects that an aggregate is owed, in order, payloads included."""
        return await self._execute(EFFECTS, {"aggregate": aggregate})

    async def retry(self, aggregate: str, store: TargetStore) -> bool:
        """Make a stream due now with all its attempts before it. False when there is none, or it is leased."""
        return bool(await self._execute(RETRY, {"aggregate": aggregate, "store": store}))

    async def skip(self, aggregate: str, store: TargetStore) -> int | None:
        """Drop the first effect of a dead stream and go on with the next. Returns its id, None when not dead."""
        rows = await self._execute(SKIP, {"aggregate": aggregate, "store": store})
        return rows[0].id if rows else None

    async def _execute(self, statement: TextClause, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        with translate_errors():
            async with self._postgres.background.connect() as connection:
                return (await connection.execute(statement, parameters)).all()
