"""A store's fault is never an effect's: what the outbox does while stores refuse, and what an operator can do."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tristore.errors import StoreUnavailable
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import EXACT, STUCK, Outcome
from tristore.outbox.statements import BACKLOG
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import (
    Journal,
    Noted,
    NotedInRedis,
    NotedInSaga,
    NotedLater,
    aggregate_of,
    make_outbox,
    outbox_repository,
    park,
    pass_leases,
    query,
    until_empty,
    well,
    write,
)

STREAM = "SELECT * FROM outbox_streams WHERE aggregate = :on AND store = :store"


class MongoDB:
    """Refuses the number 13, or everything while it is down."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or StoreUnavailable("mongodb", "timeout", "50")
        self.is_down = False

    async def before(self, stream: str, number: int) -> None:
        if self.is_down or number == 13:
            raise self.error

    async def ping(self) -> None:
        await self.before("", 0)


@pytest.fixture
def mongodb(journal: Journal) -> MongoDB:
    mongodb = MongoDB()
    journal.before = mongodb.before
    return mongodb


@pytest.fixture
async def outbox(fresh: Stores, journal: Journal, mongodb: MongoDB) -> AsyncIterator[Outbox]:
    outbox = make_outbox(fresh, journal, max_attempts=2, pings={"redis": well, "mongodb": mongodb.ping})
    yield outbox
    await outbox.close()


async def row(stores: Stores, on: str, store: str = "mongodb") -> dict[str, object]:
    [found] = await query(stores, STREAM, on=aggregate_of(on), store=store)
    return dict(found._mapping)


async def hurry(stores: Stores, outbox: Outbox, count: str, times: int) -> None:
    """Let no wait be waited for until this has been counted so often."""

    async def counted() -> bool:
        await pass_leases(stores)
        return outbox.counts[count] >= times

    await until(counted, 20)


@pytest.mark.parametrize("error", [StoreUnavailable("mongodb", "timeout", "50"), TimeoutError()])
async def test_what_a_store_refuses_while_its_probe_passes_is_stuck_and_never_parked(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox, error: Exception
) -> None:
    mongodb.error = error
    outbox.start()
    await write(outbox, fresh, [Noted(on="a", number=n) for n in (13, 14)])
    await write(outbox, fresh, [Noted(on="b", number=1)])
    await hurry(fresh, outbox, "refused", STUCK + 2)
    found = await row(fresh, "a")
    assert (found["attempts"], found["dead"], found["waits_for"]) == (0, False, "mongodb")
    assert found["last_error"] == ("timeout (50)" if isinstance(error, StoreUnavailable) else "timeout")
    assert journal.firsts("b/mongodb") == [1]
    backlog = await outbox.backlog()
    assert (backlog["stuck"], backlog["dead"], backlog["parked"], backlog["attempts"]) == (1, 0, 0, 0)
    assert outbox.counts["stuck"] == 1
    repository = outbox_repository(fresh, 2)
    [shown] = await repository.streams(dead_only=False)
    assert (shown.stuck, shown.refusals >= STUCK) == (True, True)
    await outbox.close()
    await query(fresh, "UPDATE outbox_streams SET lease_until = NULL")
    assert await repository.skip(aggregate_of("a"), "mongodb")
    assert [n for (n,) in await query(fresh, "SELECT payload->>'number' FROM outbox")] == ["14"]
    assert await repository.skip(aggregate_of("a"), "mongodb") is None


async def test_a_refused_stream_waits_longer_and_longer(fresh: Stores, mongodb: MongoDB, outbox: Outbox) -> None:
    await write(outbox, fresh, [Noted(on="a", number=13)], deliver=False)
    repository = outbox_repository(fresh, 2)
    waits = []
    for _ in range(9):
        await pass_leases(fresh)
        [(stream, _)] = (await repository.lease("mongodb", 1, 1)).items()
        await repository.settle([Outcome(stream, (), "timeout", waits_for="mongodb", refused=True)])
        [(seconds,)] = await query(fresh, "SELECT extract(epoch FROM due_at - clock_timestamp()) FROM outbox_streams")
        waits.append(float(seconds))
    assert waits[0] < 0.6
    assert 14 < waits[-1] <= 30


OF_ANOTHER_RELEASE = {
    "name = 'OfTheNextRelease'": "not known (OfTheNextRelease)",
    "payload = payload - 'number'": "not known (payload of Noted)",
}


@pytest.mark.parametrize("change", OF_ANOTHER_RELEASE)
async def test_what_only_another_release_knows_waits_and_is_due_when_that_starts(
    fresh: Stores, journal: Journal, outbox: Outbox, change: str
) -> None:
    await write(outbox, fresh, [Noted(on="a", number=n) for n in (1, 2, 3)], deliver=False)
    await query(fresh, f"UPDATE outbox SET {change} WHERE payload->>'number' = '2'")
    outbox.start()
    await hurry(fresh, outbox, "refused", STUCK + 2)  # more than an effect may fail by its own fault
    found = await row(fresh, "a")
    assert (found["attempts"], found["dead"], found["last_error"]) == (0, False, OF_ANOTHER_RELEASE[change])
    assert ((await outbox.backlog())["stuck"], journal.applied["a/mongodb"]) == (1, [1])
    await outbox.close()
    await query(fresh, "UPDATE outbox_streams SET due_at = clock_timestamp() + interval '1 hour'")
    known = "name = 'Noted', payload = payload || '{\"number\": 2}'"
    await query(fresh, f"UPDATE outbox SET {known} WHERE id = (SELECT min(id) FROM outbox)")
    next_release = make_outbox(fresh, journal)
    next_release.start()
    await until_empty(fresh)
    await next_release.close()
    assert journal.applied["a/mongodb"] == [1, 2, 3]


async def test_a_drain_ends_at_what_is_stuck(fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox) -> None:
    await write(outbox, fresh, [Noted(on="a", number=13)], deliver=False)
    await write(outbox, fresh, [Noted(on="b", number=1)], deliver=False)
    draining = asyncio.create_task(outbox.drain())
    await hurry(fresh, outbox, "refused", STUCK)
    await asyncio.wait_for(draining, 20)
    assert journal.firsts("b/mongodb") == [1]


async def test_a_failed_probe_pauses_the_store_and_tells_why(fresh: Stores, mongodb: MongoDB, outbox: Outbox) -> None:
    mongodb.error, mongodb.is_down = StoreUnavailable("mongodb", "refuses writes", "14031"), True
    with capture_logs() as logs:
        outbox.start()
        await write(outbox, fresh, [Noted(on="a", number=1)])

        async def is_paused() -> bool:
            return any(line["event"] == "outbox_paused" for line in logs)

        await until(is_paused, 20)
        mongodb.is_down = False
        await until(lambda: nothing_is_owed(fresh), 20)
    [paused] = [line for line in logs if line["event"] == "outbox_paused"]
    assert (paused["store"], paused["reason"], paused["cause"]) == ("mongodb", "refuses writes", "14031")


async def nothing_is_owed(stores: Stores) -> bool:
    return not await query(stores, "SELECT 1 FROM outbox")


async def test_what_was_parked_for_a_stores_fault_is_revived_at_the_start(
    fresh: Stores, journal: Journal, outbox: Outbox
) -> None:
    parked = {"a": "timeout", "b": "OperationFailure", "c": "ValueError"}
    for on, error in parked.items():
        await write(outbox, fresh, [Noted(on=on, number=1)], deliver=False)
        await park(fresh, aggregate_of(on), error)
    await write(outbox, fresh, [NotedInSaga(on="d", number=1)], deliver=False)
    await park(fresh, aggregate_of("d"), "unreachable")
    outbox.start()

    async def only_one_is_left() -> bool:
        return [on for (on,) in await query(fresh, "SELECT aggregate FROM outbox")] == [aggregate_of("c")]

    await until(only_one_is_left, 20)
    assert (await row(fresh, "c"))["dead"]


async def test_what_waits_or_was_parked_for_a_store_is_revived_when_it_resumes(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox
) -> None:
    mongodb.is_down = True
    outbox.start()
    await write(outbox, fresh, [NotedInSaga(on="saga", number=1)])
    await write(outbox, fresh, [Noted(on="old", number=1)], deliver=False)

    async def saga_waits() -> bool:
        return (await row(fresh, "saga", "sagas"))["waits_for"] == "mongodb"

    await until(saga_waits, 20)
    await park(fresh, aggregate_of("old"), "WriteError")
    found = await row(fresh, "saga", "sagas")
    assert (found["attempts"], found["refusals"], found["last_error"]) == (0, 0, "timeout (50)")
    mongodb.is_down = False
    await until(lambda: nothing_is_owed(fresh), 12)  # its own wait would be 15 s
    assert journal.applied == {"saga/sagas": [1], "old/mongodb": [1]}


async def test_sagas_are_not_held_back_by_a_store_that_they_do_not_need(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox
) -> None:
    mongodb.is_down = True
    outbox.start()
    await write(outbox, fresh, [Noted(on="a", number=1)])
    journal.before = Journal.nothing
    await write(outbox, fresh, [NotedInSaga(on="saga", number=1)])
    assert journal.applied["saga/sagas"] == [1]


async def test_retry_of_all_that_has_failed_or_of_one_store(fresh: Stores, outbox: Outbox) -> None:
    repository = outbox_repository(fresh, 2)
    for on in ("a", "b", "well"):
        await write(outbox, fresh, [Noted(on=on, number=1), NotedInRedis(on=on, number=1)], deliver=False)
    await pass_leases(fresh)
    await query(fresh, "UPDATE outbox_streams SET lease_until = NULL, due_at = 'infinity'")
    for on in ("a", "b"):
        await park(fresh, aggregate_of(on), "ValueError")
    assert await repository.retry(None, "redis") == 2
    assert await repository.retry(None, None) == 2
    assert await repository.retry(None, None) == 0
    due = await query(fresh, "SELECT aggregate FROM outbox_streams WHERE due_at <= clock_timestamp() AND NOT dead")
    assert sorted(on for (on,) in due) == [aggregate_of(on) for on in ("a", "a", "b", "b")]


async def test_an_inline_delivery_that_fails_gives_its_lease_back_at_once(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox
) -> None:
    """So that the relay of another process applies what this one cannot."""
    elsewhere = make_outbox(fresh, Journal())
    mongodb.is_down = True
    outbox.start()
    owed = await write(outbox, fresh, [Noted(on="a", number=1), NotedLater(on="a", number=2)], deliver=False)
    assert await outbox.deliver(owed) == {"mongodb"}
    assert not await outbox.applied_within(owed, 0.3)
    elsewhere.start()
    started = time.monotonic()
    assert await outbox.applied_within(owed, 10)
    assert time.monotonic() - started < 4  # the lease would have run out after 5 s
    await elsewhere.close()


async def test_a_second_pass_waits_for_the_first_and_counts_its_delay_from_then(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox
) -> None:
    mongodb.is_down = True
    outbox.start()
    await write(outbox, fresh, [Noted(on="a", number=1), NotedLater(on="a", number=2)])
    await pass_leases(fresh)  # an outage longer than the delay
    mongodb.is_down = False

    async def first_is_done() -> bool:
        return len(await query(fresh, "SELECT 1 FROM outbox")) == 1

    await until(first_is_done, 20)
    assert journal.applied["a/mongodb"] == [1]
    left = """
    SELECT extract(epoch FROM s.due_at - clock_timestamp()), s.due_at = o.due_at FROM outbox_streams s, outbox o"""
    [(seconds, same)] = await query(fresh, left)
    assert (50 < seconds <= 60, same) == (True, True)
    repository = outbox_repository(fresh, 2)
    assert await repository.retry(
        aggregate_of("a"), "mongodb"
    )  # an operator, or an older release, who makes it due too early

    async def waits_again() -> bool:
        return float((await query(fresh, left))[0][0]) > 50

    await until(waits_again, 20)
    assert journal.applied["a/mongodb"] == [1]
    await pass_leases(fresh)
    await until(lambda: nothing_is_owed(fresh), 20)
    assert journal.applied["a/mongodb"] == [1, 2]


async def test_one_with_a_delay_comes_last_and_holds_back_nothing(
    fresh: Stores, journal: Journal, mongodb: MongoDB, outbox: Outbox
) -> None:
    """So that a second pass takes along what was recorded while it waited, also when its time is over meanwhile."""
    owed = await write(outbox, fresh, [Noted(on="a", number=n) for n in (1, 3)], deliver=False)
    later = [NotedLater(on="b", number=2), Noted(on="b", number=3)]
    assert await outbox.deliver([*owed, *await write(outbox, fresh, later, deliver=False)]) == set()
    assert (journal.applied["a/mongodb"], journal.applied["b/mongodb"]) == ([1, 3], [3])
    outbox.start()
    await until(lambda: one_is_owed(fresh), 20)
    await write(outbox, fresh, [Noted(on="b", number=4)], deliver=False)
    await until(lambda: one_is_owed(fresh), 20)
    assert journal.applied["b/mongodb"] == [3, 4]
    mongodb.is_down = True
    await write(outbox, fresh, [Noted(on="b", number=5)])
    await pass_leases(fresh)
    mongodb.is_down = False
    await until(lambda: nothing_is_owed(fresh), 20)
    assert journal.applied["b/mongodb"] == [3, 4, 5, 2]


async def one_is_owed(stores: Stores) -> bool:
    return len(await query(stores, "SELECT 1 FROM outbox")) == 1


@pytest.mark.parametrize("at_rest", [True, False])
async def test_what_was_committed_while_supersede_waited_is_superseded(
    fresh: Stores, outbox: Outbox, at_rest: bool
) -> None:
    """Whether its stream was there before or not."""
    if at_rest:
        await write(outbox, fresh, [Noted(on="a", number=0)], deliver=False)
        await query(fresh, "DELETE FROM outbox")
        await query(fresh, "UPDATE outbox_streams SET pending = 0, lease_token = NULL, lease_until = NULL")
    earlier, erasure = (PostgresUnitOfWork(fresh.postgres, outbox.record) for _ in range(2))

    async def erase() -> None:
        async with erasure:
            await outbox.supersede(erasure.session, aggregate_of("a"))
            erasure.effects.append(Noted(on="a", number=2))
            await erasure.commit()

    async with earlier:
        await outbox.record(earlier.session, [Noted(on="a", number=1), NotedInRedis(on="a", number=1)])
        erasing = asyncio.create_task(erase())
        await asyncio.sleep(0.2)
        assert not erasing.done()
        await earlier.session.commit()
    await erasing
    assert [n for (n,) in await query(fresh, "SELECT payload->>'number' FROM outbox")] == ["2"]
    pending = await query(fresh, "SELECT store, pending FROM outbox_streams ORDER BY store")
    assert [tuple(found) for found in pending if found[1]] == [("mongodb", 1)]
    assert erasure.owed[0].stream


async def test_a_stream_whose_count_is_wrong_is_recounted_and_harms_no_other(fresh: Stores, outbox: Outbox) -> None:
    repository = outbox_repository(fresh, 2)
    owed = [await write(outbox, fresh, [Noted(on=on, number=n) for n in (1, 2, 3)], deliver=False) for on in "abc"]
    await query(fresh, "UPDATE outbox_streams SET pending = 1 WHERE aggregate = 'noted:b'")
    await repository.settle(
        [Outcome(stream, tuple(item.id for item in items[:2])) for items in owed if (stream := items[0].stream)]
    )
    pending = await query(fresh, "SELECT aggregate, pending FROM outbox_streams ORDER BY aggregate")
    assert [tuple(found) for found in pending] == [
        (aggregate_of("a"), 1),
        (aggregate_of("b"), 1),
        (aggregate_of("c"), 1),
    ]
    assert len(await query(fresh, "SELECT 1 FROM outbox")) == 3


async def test_the_backlog_is_counted_up_to_a_bound_and_estimated_above(fresh: Stores, outbox: Outbox) -> None:
    owe = """
    INSERT INTO outbox (aggregate, store, name, payload)
    SELECT 'a' || n, 'mongodb', 'Noted', '{}' FROM generate_series(1, :n) n"""
    await query(fresh, owe, n=EXACT - 1)
    assert (await outbox.backlog())["backlog"] == EXACT - 1
    await query(fresh, owe, n=3 * EXACT)

    async def is_estimated() -> bool:
        await query(fresh, "SELECT 1")  # a connection tells what it has done when it does something else
        return 3 * EXACT < (await outbox.backlog())["backlog"] < 5 * EXACT

    await until(is_estimated, 15)
    streams = "INSERT INTO outbox_streams (aggregate, store, pending, due_at, dead, attempts, refusals)"
    values = "SELECT 'a' || n, 'mongodb', 1, now(), n > :n, CASE WHEN n > :n THEN 2 ELSE 0 END, 0 FROM"
    await query(fresh, f"{streams} {values} generate_series(1, 2 * :n) n", n=2 * EXACT)
    await query(fresh, "ANALYZE outbox, outbox_streams")
    plan = await query(
        fresh, f"EXPLAIN (ANALYZE, FORMAT JSON) {BACKLOG.text}".replace(":exact", "10000").replace(":stuck", "5")
    )
    assert max(rows_of(plan[0][0][0]["Plan"])) <= EXACT + 1
    state = await outbox.backlog()
    assert (state["dead"], state["parked"], state["attempts"], state["stuck"]) == (EXACT, EXACT, 2, 0)


def rows_of(plan: Any) -> Iterator[int]:
    """That each node of a plan has read, whether it kept them or not."""
    yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from rows_of(part)
