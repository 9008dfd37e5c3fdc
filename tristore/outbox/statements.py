"""The statements of the outbox. Time is PostgreSQL's. The column `store` names a queue: most have a store's name."""

from sqlalchemy import text

# The streams' rows are locked before the effects get their ids, so within a stream ids follow the order of commits.
# They are locked in order, so that two transactions that add to the same streams cannot deadlock.
RECORD = text("""
WITH owed AS (
  SELECT *, count(*) OVER (PARTITION BY aggregate, store) AS n,
    row_number() OVER (PARTITION BY aggregate, store ORDER BY delay > 0, position) AS place
  FROM unnest(CAST(:aggregates AS text[]), CAST(:stores AS text[]), CAST(:names AS text[]),
              CAST(:payloads AS jsonb[]), CAST(:delays AS float[]))
    WITH ORDINALITY AS o (aggregate, store, name, payload, delay, position)
), streams AS (
  INSERT INTO outbox_streams AS s (aggregate, store, pending, due_at, lease_until, lease_token)
  SELECT aggregate, store, n,
    clock_timestamp() + CASE WHEN delay > 0 THEN make_interval(secs => delay) ELSE :lease END,
    CASE WHEN delay > 0 THEN NULL ELSE clock_timestamp() + :lease END,
    CASE WHEN delay > 0 THEN NULL ELSE CAST(:token AS uuid) END
  FROM owed WHERE place = 1 ORDER BY aggregate, store
  ON CONFLICT (aggregate, store) DO UPDATE SET
    pending = s.pending + excluded.pending,
    due_at = CASE WHEN s.pending = 0 THEN excluded.due_at WHEN s.lease_token IS NULL AND s.last_error IS NULL
      THEN least(s.due_at, clock_timestamp()) ELSE s.due_at END,
    lease_until = CASE WHEN s.pending = 0 THEN excluded.lease_until ELSE s.lease_until END,
    lease_token = CASE WHEN s.pending = 0 THEN excluded.lease_token ELSE s.lease_token END
  RETURNING aggregate, store, pending, due_at, lease_token = CAST(:token AS uuid) AS mine
), recorded AS (
  INSERT INTO outbox (aggregate, store, name, payload, delay, due_at, traceparent)
  SELECT aggregate, store, name, payload, delay, CASE WHEN place = 1 AND delay > 0 AND pending = n THEN due_at END,
    CAST(:traceparent AS text)
  FROM owed JOIN streams USING (aggregate, store) ORDER BY position
  RETURNING id, aggregate, store
)
SELECT id, coalesce(mine, false) AS mine FROM recorded JOIN streams USING (aggregate, store) ORDER BY id
""")

# A lease moves due_at to its end. So the poll needs one index, and a lease whose holder has died runs out by itself.
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
SELECT e.id, l.aggregate, e.name, e.payload, e.delay, e.traceparent FROM leased l LEFT JOIN LATERAL (
  SELECT id, name, CAST(payload AS text), delay, traceparent FROM outbox o
  WHERE o.aggregate = l.aggregate AND o.store = l.store AND (delay = 0 OR due_at <= clock_timestamp())
  ORDER BY id LIMIT :effects
) e ON true ORDER BY e.delay > 0, e.id
""")

# Whoever has lost the lease changes nothing. `pending` is counted on the locked row itself. So it includes an effect
# that was added after this statement's snapshot, and a stream is never taken for empty by mistake. The delay of an
# effect begins here, when the effect has become the first. If this snapshot does not show that effect, the next lease
# comes without effects. The stream waits for it only when it holds nothing else, in this snapshot or after it.
SETTLE = text("""
WITH outcome AS (
  SELECT * FROM unnest(CAST(:aggregates AS text[]), CAST(:stores AS text[]), CAST(:tokens AS uuid[]),
    CAST(:errors AS text[]), CAST(:waits AS text[]), CAST(:refused AS boolean[]), CAST(:withins AS float[]))
    AS o (aggregate, store, token, error, waits_for, refused, within)
), mine AS MATERIALIZED (
  SELECT s.aggregate, s.store, s.pending FROM outbox_streams s JOIN outcome o USING (aggregate, store)
  WHERE s.lease_token = o.token ORDER BY s.aggregate, s.store FOR UPDATE OF s
), removed AS (
  DELETE FROM outbox e USING mine WHERE e.aggregate = mine.aggregate AND e.store = mine.store
  AND e.id = ANY(CAST(:ids AS bigint[])) RETURNING e.id, e.aggregate, e.store
), counted AS (
  SELECT m.*, r.n, r.ids FROM mine m, LATERAL (SELECT count(*) AS n, coalesce(array_agg(id), '{}') AS ids FROM removed r
    WHERE r.aggregate = m.aggregate AND r.store = m.store) r
), head AS MATERIALIZED (
  SELECT c.aggregate, c.store, e.id, coalesce(e.due_at, clock_timestamp() + make_interval(secs => e.delay)) AS due_at,
    c.pending - c.n = (SELECT count(*) FROM outbox o WHERE o.aggregate = c.aggregate AND o.store = c.store
      AND o.id <> ALL(c.ids) AND o.delay > 0) AS all_wait
  FROM counted c, LATERAL (SELECT id, delay, due_at FROM outbox o WHERE o.aggregate = c.aggregate
    AND o.store = c.store AND o.id <> ALL(c.ids) ORDER BY id LIMIT 1) e WHERE c.pending > c.n AND e.delay > 0
), timed AS (
  UPDATE outbox e SET due_at = head.due_at FROM head WHERE e.id = head.id AND e.due_at IS NULL
), done AS (
  SELECT o.*, c.n, CASE WHEN head.all_wait THEN head.due_at END AS turn,
    CASE WHEN o.waits_for IS NULL THEN o.error END AS own, CASE WHEN c.n > 0 THEN 0 ELSE 1 END AS again
  FROM outcome o JOIN counted c USING (aggregate, store) LEFT JOIN head USING (aggregate, store)
), settled AS (
  UPDATE outbox_streams s SET
    pending = s.pending - n, lease_token = NULL, lease_until = NULL, last_error = error, waits_for = done.waits_for,
    attempts = least(CASE WHEN own IS NOT NULL THEN 1 ELSE 0 END + again * s.attempts,
      CASE WHEN own = :patient THEN :max_attempts / 2 END),
    refusals = CASE WHEN refused THEN 1 ELSE 0 END + CASE WHEN own IS NULL THEN again * s.refusals ELSE 0 END,
    dead = coalesce(starts_with(own, :hopeless), false)
      OR coalesce(own <> :patient, false) AND n = 0 AND s.attempts + 1 >= :max_attempts,
    due_at = CASE WHEN error IS NULL THEN coalesce(turn, clock_timestamp()) ELSE clock_timestamp() + make_interval(
      secs => least(within, least(:longest, :first * 2 ^ CASE WHEN own IS NULL AND NOT refused THEN 20
        ELSE again * least(CASE WHEN refused THEN s.refusals ELSE s.attempts END, 20) END) * (0.5 + random() / 2))) END
  FROM done WHERE s.aggregate = done.aggregate AND s.store = done.store AND s.lease_token = done.token
  RETURNING s.aggregate, s.store, s.dead, s.last_error, refused AND s.refusals = :stuck AS is_stuck
)
SELECT aggregate, store, last_error, dead FROM settled WHERE dead OR is_stuck
""")
"""A lease that ends without an error counts nothing: the store was down, or the lease ran out."""

MAKE = text("""
INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES (:aggregate, :store, 0, clock_timestamp())
ON CONFLICT DO NOTHING
""")
LOCK = text("SELECT 1 FROM outbox_streams WHERE aggregate = :aggregate AND store = :store FOR UPDATE")
RECOUNT = text("""
UPDATE outbox_streams SET pending = (SELECT count(*) FROM outbox WHERE aggregate = :aggregate AND store = :store)
WHERE aggregate = :aggregate AND store = :store RETURNING pending
""")

# For an operator who looks whether the counts are right. One statement has one snapshot, in which they must be.
STREAMS_FOLLOWING = text("""
(SELECT aggregate, store FROM outbox_streams WHERE (aggregate, store) > (:aggregate, :store)
 ORDER BY aggregate, store LIMIT :limit)
UNION ALL
(SELECT aggregate, store FROM outbox WHERE (aggregate, store) > (:aggregate, :store)
 ORDER BY aggregate, store LIMIT :limit)
ORDER BY aggregate, store LIMIT :limit
""")
MISCOUNTED = text("""
SELECT k.aggregate, k.store, coalesce(s.pending, 0) AS pending, e.effects
FROM unnest(CAST(:aggregates AS text[]), CAST(:stores AS text[])) AS k (aggregate, store)
LEFT JOIN outbox_streams s ON s.aggregate = k.aggregate AND s.store = k.store,
LATERAL (SELECT count(*) AS effects FROM outbox o WHERE o.aggregate = k.aggregate AND o.store = k.store) e
WHERE coalesce(s.pending, 0) <> e.effects
""")
WAITING = text("""
SELECT DISTINCT aggregate FROM outbox_streams WHERE aggregate = ANY(CAST(:aggregates AS text[])) AND pending > 0
""")

SWEEP = text("""
DELETE FROM outbox_streams WHERE (aggregate, store) IN (
  SELECT aggregate, store FROM outbox_streams WHERE pending = 0 AND due_at < clock_timestamp() - interval '1 second'
  ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING store
""")

# First the rows of all its streams, in the order in which everybody locks them; those that do not exist are made.
# Whoever holds a lease finds it gone. The effects go in a second statement: its snapshot has what was committed
# meanwhile.
SUPERSEDE = text("""
INSERT INTO outbox_streams (aggregate, store, pending, due_at)
SELECT :aggregate, store, 0, clock_timestamp() FROM unnest(CAST(:queues AS text[])) AS store ORDER BY store
ON CONFLICT (aggregate, store) DO UPDATE SET pending = 0, attempts = 0, refusals = 0, waits_for = NULL, dead = false,
  lease_token = NULL, lease_until = NULL, last_error = NULL
""")
DROP = text("DELETE FROM outbox WHERE aggregate = :aggregate AND store = ANY(CAST(:queues AS text[]))")

BACKLOG = text("""
SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT :exact + 1) o) AS backlog,
       pg_stat_get_live_tuples(CAST('outbox' AS regclass)) AS estimate, dead.dead, dead.parked,
       (SELECT count(*) FROM (SELECT 1 FROM outbox_streams WHERE refusals > 0 AND refusals >= :stuck LIMIT :exact) s)
         AS stuck,
       (SELECT coalesce(max(attempts), 0) FROM outbox_streams WHERE attempts > 0) AS attempts,
       coalesce(extract(epoch FROM clock_timestamp() - (SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0)
         AS oldest_seconds
FROM (SELECT count(*) AS dead, coalesce(sum(pending), 0) AS parked
      FROM (SELECT pending FROM outbox_streams WHERE dead LIMIT :exact) d) dead
""")

OWED = text("SELECT 1 FROM outbox WHERE id = ANY(CAST(:ids AS bigint[])) LIMIT 1")
NEWEST = text("SELECT coalesce(max(id), 0) AS id FROM outbox")
IS_BEHIND = text("""
SELECT 1 FROM outbox_streams s WHERE store = :store AND pending > 0 AND NOT dead AND EXISTS (
  SELECT 1 FROM outbox o WHERE o.aggregate = s.aggregate AND o.store = s.store AND o.id <= :newest AND o.delay = 0
) LIMIT 1
""")
HAS_WORK = text("SELECT 1 FROM outbox_streams WHERE pending > 0 AND NOT dead AND refusals < :stuck LIMIT 1")

STREAMS = text("""
SELECT s.aggregate, s.store, s.pending, s.attempts, s.refusals, s.dead, s.last_error, s.waits_for, s.due_at,
       s.lease_until, s.refusals >= :stuck AS stuck,
       (SELECT min(created_at) FROM outbox e WHERE e.aggregate = s.aggregate AND e.store = s.store) AS since
FROM outbox_streams s WHERE s.pending > 0 AND (s.dead OR NOT :dead_only)
ORDER BY s.dead DESC, stuck DESC, since LIMIT :limit
""")

EFFECTS = text("""
SELECT id, store, name, created_at, CAST(payload AS text) FROM outbox WHERE aggregate = :aggregate ORDER BY id LIMIT 100
""")

# A leased stream is being tried already. The statement waits for no lock, so it needs no order of locks.
RETRY = text("""
WITH chosen AS (
  SELECT aggregate, store FROM outbox_streams WHERE pending > 0
    AND (aggregate = :aggregate OR CAST(:aggregate AS text) IS NULL AND (dead OR attempts > 0 OR waits_for IS NOT NULL))
    AND (store = :store OR CAST(:store AS text) IS NULL) AND (lease_until IS NULL OR lease_until < clock_timestamp())
  FOR UPDATE SKIP LOCKED
)
UPDATE outbox_streams s SET dead = false, attempts = 0, refusals = 0, waits_for = NULL, due_at = clock_timestamp()
FROM chosen WHERE s.aggregate = chosen.aggregate AND s.store = chosen.store RETURNING s.store
""")

REVIVE = text("""
WITH chosen AS (
  SELECT aggregate, store FROM outbox_streams
  WHERE (waits_for = :store
    OR (dead AND store = ANY(CAST(:queues AS text[])) AND last_error = ANY(CAST(:errors AS text[]))))
    AND (lease_until IS NULL OR lease_until < clock_timestamp()) LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE outbox_streams s SET dead = false, attempts = 0, refusals = 0, waits_for = NULL, due_at = clock_timestamp()
FROM chosen WHERE s.aggregate = chosen.aggregate AND s.store = chosen.store RETURNING s.store
""")

# Nobody is about to apply the first effect of a dead stream, nor of a stuck stream that is not leased. "First" means
# the one that the relay tries first.
SKIP = text("""
WITH stream AS (
  UPDATE outbox_streams SET dead = false, attempts = 0, refusals = 0, waits_for = NULL, last_error = NULL,
    lease_token = NULL, lease_until = NULL, due_at = clock_timestamp(), pending = pending - 1
  WHERE aggregate = :aggregate AND store = :store AND pending > 0 AND (dead OR refusals >= :stuck)
    AND (lease_until IS NULL OR lease_until < clock_timestamp()) RETURNING aggregate, store
)
DELETE FROM outbox WHERE id = (
  SELECT id FROM outbox JOIN stream USING (aggregate, store) ORDER BY delay > 0, id LIMIT 1) RETURNING id
""")
