"""The outbox on the real PostgreSQL, with handlers that note what they do."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tristore.errors import StoreUnavailable
from tristore.outbox.effects import Hopeless, Stream
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import Outcome
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import (
    Journal,
    Noted,
    NotedInRedis,
    NotedLater,
    aggregate_of,
    make_outbox,
    outbox_repository,
    pass_leases,
    query,
    until_empty,
    well,
    write,
)


@pytest.fixture
async def outbox(fresh: Stores, journal: Journal) -> AsyncIterator[Outbox]:
    outbox = make_outbox(fresh, journal)
    outbox.start()
    yield outbox
    await outbox.close()


def numbered(on: str, *numbers: int) -> list[Noted]:
    return [Noted(on=on, number=number) for number in numbers]


async def test_delivers_at_once_in_order_and_leaves_nothing(outbox: Outbox, fresh: Stores, journal: Journal) -> None:
    await write(outbox, fresh, numbered("a", 1, 2, 3))
    assert journal.applied["a/mongodb"] == [1, 2, 3]
    await until_empty(fresh)


async def test_what_was_rolled_back_is_not_owed(outbox: Outbox, fresh: Stores, journal: Journal) -> None:
    async with PostgresUnitOfWork(fresh.postgres, outbox.record) as uow:
        await outbox.record(uow.session, numbered("a", 1))
    assert await query(fresh, "SELECT 1 FROM outbox") == []
    assert await query(fresh, "SELECT 1 FROM outbox_streams") == []


async def test_a_request_that_owes_much_delivers_all_on_few_connections(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal, deadline=4)  # no relay runs
    connections = asyncio.Semaphore(10)

    async def take_connection(stream: str, number: int) -> None:
        if connections.locked():
            raise StoreUnavailable("redis", "busy")
        async with connections:
            await asyncio.sleep(0)

    journal.before = take_connection
    await write(outbox, fresh, [NotedInRedis(on=f"session{i}", number=i) for i in range(100)])
    assert journal.applied == {f"session{i}/redis": [i] for i in range(100)}


async def test_the_relay_delivers_what_its_writer_could_not(outbox: Outbox, fresh: Stores, journal: Journal) -> None:
    await write(outbox, fresh, numbered("a", 1), deliver=False)  # the writer has died after its commit
    await pass_leases(fresh)
    await until_empty(fresh)
    assert journal.applied["a/mongodb"] == [1]


async def test_only_an_empty_stream_is_leased_by_its_writer(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)  # no relay runs
    await write(outbox, fresh, numbered("a", 1), deliver=False)
    await write(outbox, fresh, numbered("a", 2))
    assert journal.applied["a/mongodb"] == []
    [(pending,)] = await query(fresh, "SELECT pending FROM outbox_streams")
    assert pending == 2


async def test_ids_follow_the_order_of_commits_within_a_stream(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    await write(outbox, fresh, numbered("a", 0), deliver=False)
    first = PostgresUnitOfWork(fresh.postgres, outbox.record)
    async with first:
        await outbox.record(first.session, numbered("a", 1))
        second = asyncio.create_task(write(outbox, fresh, numbered("a", 2), deliver=False))
        await asyncio.sleep(0.1)
        assert not second.done()  # it waits for the row of the stream
        await first.session.commit()
    await second
    rows = await query(fresh, "SELECT payload->>'number' FROM outbox ORDER BY id")
    assert [row[0] for row in rows] == ["0", "1", "2"]


async def test_crossing_writers_of_two_streams_do_not_deadlock(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    await asyncio.gather(
        *(write(outbox, fresh, numbered("a", i) + numbered("b", i), deliver=False) for i in range(30)),
        *(write(outbox, fresh, numbered("b", i) + numbered("a", i), deliver=False) for i in range(30)),
    )
    assert (await query(fresh, "SELECT sum(pending) FROM outbox_streams"))[0][0] == 120


async def test_who_has_lost_the_lease_settles_nothing(fresh: Stores, journal: Journal) -> None:
    repository = outbox_repository(fresh)
    outbox = make_outbox(fresh, journal)
    await write(outbox, fresh, numbered("a", 1), deliver=False)
    await pass_leases(fresh)
    [(stale, [effect])] = (await repository.lease("mongodb", 10, 10)).items()
    await pass_leases(fresh)
    [(valid, _)] = (await repository.lease("mongodb", 10, 10)).items()
    await repository.settle([Outcome(stale, (effect.id,))])
    await repository.settle([Outcome(Stream(aggregate_of("a"), "mongodb", uuid.uuid4()), (effect.id,))])
    assert len(await query(fresh, "SELECT 1 FROM outbox")) == 1
    await repository.settle([Outcome(stale, (effect.id,)), Outcome(valid, (effect.id,))])
    assert await query(fresh, "SELECT 1 FROM outbox") == []
    assert (await query(fresh, "SELECT pending FROM outbox_streams"))[0][0] == 0


async def test_an_effect_added_while_its_stream_is_settled_is_not_forgotten(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    repository = outbox_repository(fresh)
    await write(outbox, fresh, numbered("a", 1), deliver=False)
    await pass_leases(fresh)
    [(stream, [effect])] = (await repository.lease("mongodb", 10, 10)).items()
    async with PostgresUnitOfWork(fresh.postgres, outbox.record) as uow:
        await outbox.record(uow.session, numbered("a", 2))
        settling = asyncio.create_task(repository.settle([Outcome(stream, (effect.id,))]))
        await asyncio.sleep(0.1)  # it waits with a snapshot that does not show the second effect
        await uow.session.commit()
    await settling
    [(pending, due)] = await query(fresh, "SELECT pending, due_at <= clock_timestamp() FROM outbox_streams")
    assert (pending, due) == (1, True)


async def test_a_store_that_is_down_costs_no_attempt_and_the_other_goes_on(fresh: Stores, journal: Journal) -> None:
    down = True
    pings = 0

    async def before(stream: str, number: int) -> None:
        if down and stream.endswith("mongodb"):
            raise StoreUnavailable("mongodb", "unreachable")

    async def ping() -> None:
        nonlocal pings
        pings += 1
        await before("/mongodb", 0)

    async def has_probed_and_served_redis() -> bool:
        return pings >= 3 and all(journal.applied[f"a{i}/redis"] == [1] for i in range(5))

    journal.before = before
    outbox = make_outbox(fresh, journal, max_attempts=1, pings={"redis": well, "mongodb": ping})
    outbox.start()
    for i in range(5):
        await write(outbox, fresh, [Noted(on=f"a{i}", number=1), NotedInRedis(on=f"a{i}", number=1)])
    await until(has_probed_and_served_redis, 20)
    rows = await query(fresh, "SELECT attempts, dead FROM outbox_streams WHERE store = 'mongodb'")
    assert set(map(tuple, rows)) == {(0, False)}
    down = False
    await until_empty(fresh, 10)
    await outbox.close()
    assert [journal.applied[f"a{i}/mongodb"] for i in range(5)] == [[1]] * 5


async def test_a_poisonous_effect_is_parked_blocks_its_own_stream_only_and_can_be_skipped(
    outbox: Outbox, fresh: Stores, journal: Journal
) -> None:
    async def before(stream: str, number: int) -> None:
        if number == 13:
            raise ValueError("always")

    journal.before = before
    await write(outbox, fresh, numbered("a", 12, 13, 14))
    await write(outbox, fresh, numbered("b", 1))
    async with asyncio.timeout(10):
        while not (await outbox.backlog())["dead"]:
            await asyncio.sleep(0.05)
    assert (journal.applied["a/mongodb"], journal.applied["b/mongodb"]) == ([12], [1])
    await write(outbox, fresh, numbered("a", 15))
    state = await outbox.backlog()
    assert (state["backlog"], state["dead"], state["parked"], state["attempts"]) == (3, 1, 3, 3)
    repository = outbox_repository(fresh)
    [shown] = await repository.streams(dead_only=True)
    assert (shown.aggregate, shown.pending, shown.dead, shown.last_error) == (aggregate_of("a"), 3, True, "ValueError")
    assert await repository.retry(aggregate_of("a"), "mongodb")
    async with asyncio.timeout(10):
        while not (await outbox.backlog())["dead"]:
            await asyncio.sleep(0.05)
    assert journal.applied["a/mongodb"] == [12]
    assert await repository.skip(aggregate_of("a"), "mongodb")
    await until_empty(fresh)
    assert journal.applied["a/mongodb"] == [12, 14, 15]
    assert await repository.skip(aggregate_of("a"), "mongodb") is None


async def test_two_relays_and_inline_delivery_keep_each_streams_order(fresh: Stores, journal: Journal) -> None:
    async def before(stream: str, number: int) -> None:
        await asyncio.sleep(0)

    journal.before = before
    outboxes = [make_outbox(fresh, journal) for _ in range(2)]
    for outbox in outboxes:
        outbox.start()

    async def writer(aggregate: int) -> None:
        for number in range(20):
            await write(outboxes[number % 2], fresh, numbered(f"a{aggregate}", number))

    await asyncio.gather(*(writer(i) for i in range(25)))
    await until_empty(fresh)
    for outbox in outboxes:
        await outbox.close()
    assert all(journal.firsts(f"a{i}/mongodb") == list(range(20)) for i in range(25))
    assert journal.repeats() <= 5


async def test_rows_of_empty_streams_are_swept(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    outbox.start()
    await asyncio.gather(*(write(outbox, fresh, numbered(f"a{i}", 1)) for i in range(20)))
    await until_empty(fresh)
    await pass_leases(fresh)
    await outbox_repository(fresh).sweep()
    assert await query(fresh, "SELECT 1 FROM outbox_streams") == []
    await outbox.close()


async def test_a_store_that_answers_but_cannot_serve_is_not_asked_without_pause(
    fresh: Stores, journal: Journal
) -> None:
    asked = 0

    async def before(stream: str, number: int) -> None:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("mongodb", "not migrated")

    journal.before = before
    outbox = make_outbox(fresh, journal, max_attempts=1)
    outbox.start()
    await write(outbox, fresh, numbered("a", 1))

    async def is_asked_again() -> bool:
        return asked >= 4

    assert await until(is_asked_again, 20) > 0.7  # it waits for 0.25 s at least, and then for 0.5
    await outbox.close()
    assert (await outbox.backlog())["dead"] == 0


async def test_a_delayed_effect_waits_and_holds_back_nothing_else(
    outbox: Outbox, fresh: Stores, journal: Journal
) -> None:
    await write(outbox, fresh, [NotedLater(on="later", number=1), Noted(on="now", number=2)])
    assert journal.applied == {"now/mongodb": [2]}
    [(seconds, leased)] = await query(
        fresh,
        "SELECT extract(epoch FROM due_at - clock_timestamp()), lease_token FROM outbox_streams "
        "WHERE aggregate = 'noted:later'",
    )
    assert 50 < seconds < 60
    assert leased is None
    await pass_leases(fresh)
    await until_empty(fresh)
    assert journal.applied["later/mongodb"] == [1]


async def test_what_supersedes_comes_through_dead_streams_and_leases(fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    await write(outbox, fresh, numbered("a", 1, 2), deliver=False)
    await write(outbox, fresh, [NotedInRedis(on="a", number=3)], deliver=False)
    await write(outbox, fresh, numbered("b", 4), deliver=False)
    await query(fresh, "UPDATE outbox_streams SET dead = true, attempts = 12 WHERE store = 'redis'")
    [late] = [
        Outcome(
            Stream(aggregate_of("a"), "mongodb", token),
            tuple(id_ for (id_,) in await query(fresh, "SELECT id FROM outbox")),
        )
        for (token,) in await query(
            fresh, "SELECT lease_token FROM outbox_streams WHERE aggregate = 'noted:a' AND store = 'mongodb'"
        )
    ]
    async with PostgresUnitOfWork(fresh.postgres, outbox.record) as uow:
        await outbox.supersede(uow.session, aggregate_of("a"))
        uow.effects += [Noted(on="a", number=5), NotedInRedis(on="a", number=6)]
        await uow.commit()
    await outbox_repository(fresh).settle([late])  # whoever held the lease before changes nothing
    await outbox.deliver(uow.owed)
    assert journal.applied == {"a/mongodb": [5], "a/redis": [6]}
    await query(fresh, "UPDATE outbox_streams SET due_at = clock_timestamp() WHERE aggregate = 'noted:b'")
    outbox.start()
    await until_empty(fresh)
    await outbox.close()
    assert journal.applied == {"a/mongodb": [5], "a/redis": [6], "b/mongodb": [4]}


async def test_what_will_never_be_possible_is_parked_at_once(fresh: Stores, journal: Journal) -> None:
    async def refuse(stream: str, number: int) -> None:
        if number == 2:
            raise Hopeless("550")

    journal.before = refuse
    outbox = make_outbox(fresh, journal, max_attempts=12)
    outbox.start()
    await write(outbox, fresh, [*numbered("a", 1, 2, 3), *numbered("b", 1)])

    async def is_parked() -> bool:
        rows = await query(fresh, "SELECT aggregate, dead, last_error, pending FROM outbox_streams WHERE pending > 0")
        return [tuple(row) for row in rows] == [(aggregate_of("a"), True, "Hopeless (550)", 2)]

    await until(is_parked, 20)
    assert journal.applied == {"a/mongodb": [1], "b/mongodb": [1]}
    assert outbox.counts["dead"] == 1
    await outbox.close()
