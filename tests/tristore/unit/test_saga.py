"""The engine of sagas with a small saga of the test's own, on the real PostgreSQL."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from tristore.errors import Conflict, NotFound, StoreUnavailable
from tristore.models import new_id
from tristore.outbox.effects import Effect, NotYet, Unknown
from tristore.outbox.relay import Outbox
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.engine import PostgresStep, Refused, RemoteStep, Sagas, TooLate
from tristore.saga.repository import SagaRepository
from tristore.saga.tables import Progress
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.outbox import make_outbox, outbox_repository, pass_leases, query, well
from tristore.testing.stores import Servers, own_databases

STEPS = ("A", "b", "C", "d")
"""In capitals those in another store."""


class Diary:
    """A saga that writes down what is done and undone: two steps in another store and two in PostgreSQL, by turns."""

    name = "diary"
    seconds: float = 30

    def __init__(self) -> None:
        self.steps: Sequence[RemoteStep | PostgresStep] = tuple(
            RemoteStep(name, do=partial(self._do, name), undo=partial(self._undo, name))
            if name.isupper()
            else PostgresStep(name, do=partial(self._record, f"+{name}"), undo=partial(self._record, f"-{name}"))
            for name in STEPS
        )
        self.written: list[str] = []
        self.reasons: list[str] = []
        self.refused = ""
        self.errors: dict[str, list[Exception]] = {}

    async def turned_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> None:
        self.reasons.append(reason)

    def fail(self, what: str) -> None:
        if self.errors.get(what):
            raise self.errors[what].pop(0)
        if what == f"+{self.refused}":
            raise Refused("no more")

    async def _do(self, name: str, saga: Progress) -> None:
        self.fail(f"+{name}")
        self.written.append(f"+{name}")

    async def _undo(self, name: str, saga: Progress) -> Sequence[Effect]:
        self.fail(f"-{name}")
        self.written.append(f"-{name}")
        return ()

    async def _record(self, entry: str, uow: PostgresUnitOfWork, saga: Progress) -> None:
        await uow.session.execute(text("INSERT INTO diary VALUES (:id, :entry)"), {"id": saga.id, "entry": entry})
        self.fail(entry)
        self.written.append(entry)


class Scene:
    def __init__(self, stores: Stores, max_attempts: int = 3) -> None:
        self.stores = stores
        self.saga = Diary()
        self.repository = outbox_repository(stores, max_attempts)
        self.unit_of_work = partial(PostgresUnitOfWork, stores.postgres, self.repository.record)
        self.sagas = Sagas(
            unit_of_work=self.unit_of_work,
            repository=SagaRepository(stores.postgres),
            supersede=self.repository.supersede,
            kinds=[self.saga],
        )
        self.mongodb_is_down = False
        self.outbox: Outbox = make_outbox(
            stores,
            SimpleNamespace(sagas=self.sagas),
            max_attempts=max_attempts,
            pings={"redis": well, "mongodb": self.ping},
        )

    async def ping(self) -> None:
        if self.mongodb_is_down:
            raise StoreUnavailable("mongodb", "timeout")

    async def begin(self) -> uuid.UUID:
        saga_id = new_id()
        async with self.unit_of_work() as uow:
            await self.sagas.begin(uow, "diary", saga_id)
            await uow.commit()
        await self.outbox.deliver(uow.owed)
        return saga_id

    async def row(self, saga_id: uuid.UUID) -> Any:
        return (await self.sagas.unfinished(saga_id))[0]

    async def until(self, saga_id: uuid.UUID, state: str, *, dead: bool = False) -> Any:
        async with asyncio.timeout(30):
            while (row := await self.row(saga_id)).state != state or bool(row.dead) != dead:
                await pass_leases(self.stores)  # no wait is waited for
                await asyncio.sleep(0.02)
        return row

    async def recorded(self, saga_id: uuid.UUID) -> list[str]:
        return [row.entry for row in await query(self.stores, "SELECT entry FROM diary WHERE id = :id", id=saga_id)]


@pytest.fixture(scope="module")
async def own(servers: Servers) -> AsyncIterator[Stores]:
    async with own_databases(servers) as settings, open_stores(settings) as stores:
        await query(stores, "CREATE TABLE diary (id uuid, entry text, UNIQUE (id, entry))")
        yield stores


@pytest.fixture
async def scene(own: Stores) -> AsyncIterator[Scene]:
    await query(own, "TRUNCATE outbox, outbox_streams, sagas")
    scene = Scene(own)
    scene.outbox.start()
    yield scene
    await scene.outbox.close()


async def test_all_steps_are_done_in_their_order(scene: Scene) -> None:
    saga_id = await scene.begin()
    assert scene.saga.written == ["+A", "+b", "+C", "+d"]
    assert (await scene.row(saga_id)).state == "done"
    assert await scene.recorded(saga_id) == ["+b", "+d"]


UNDONE = {"A": ["-A"], "b": ["-A"], "C": ["-C", "-b", "-A"], "d": ["-C", "-b", "-A"]}
"""A step in another store is undone also when it was refused: it may have had an effect at an earlier attempt."""


@pytest.mark.parametrize("refused", STEPS)
async def test_refused_at_any_step_the_saga_is_undone_in_reverse(scene: Scene, refused: str) -> None:
    scene.saga.refused = refused
    saga_id = await scene.begin()
    assert (await scene.row(saga_id)).reason == "no more"
    await scene.until(saga_id, "compensated")
    done = ["+A", "+b", "+C", "+d"][: STEPS.index(refused)]
    assert scene.saga.written == done + UNDONE[refused]
    assert scene.saga.reasons == ["no more"]
    assert await scene.recorded(saga_id) == [entry for entry in scene.saga.written if entry[1].islower()]


async def test_a_saga_that_is_done_can_be_undone_once(scene: Scene) -> None:
    saga_id = await scene.begin()
    outcomes = await asyncio.gather(*(scene.sagas.give_up(saga_id, "regret") for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [Conflict] * 4
    await scene.until(saga_id, "compensated")
    assert scene.saga.written[4:] == ["-d", "-C", "-b", "-A"]
    with pytest.raises(NotFound):
        await scene.sagas.give_up(new_id(), "regret")


async def test_a_step_whose_outcome_is_unknown_is_asked_again_and_not_undone(scene: Scene) -> None:
    scene.saga.errors["+C"] = [NotYet(), TimeoutError(), NotYet()]
    await scene.until(await scene.begin(), "done")
    assert scene.saga.written == ["+A", "+b", "+C", "+d"]


async def test_a_saga_that_misses_its_deadline_is_undone(scene: Scene) -> None:
    scene.saga.seconds = 0.3
    scene.saga.errors["+C"] = [NotYet()] * 1000
    saga_id = await scene.begin()
    assert (await scene.until(saga_id, "compensated")).reason == "deadline"
    assert scene.saga.written == ["+A", "+b", "-C", "-b", "-A"]


async def test_not_yet_is_never_parked_and_leaves_attempts_for_faults(scene: Scene) -> None:
    scene.saga.errors["+C"] = [*[NotYet() for _ in range(10)], ValueError()]
    await scene.until(await scene.begin(), "done")
    assert scene.saga.errors["+C"] == []


async def test_two_processes_at_once_record_each_step_once(scene: Scene, own: Stores) -> None:
    scene.saga.errors["+A"] = [NotYet()]
    saga_id = await scene.begin()
    await asyncio.gather(*(scene.sagas.go_on(saga_id, "running") for _ in range(8)))
    assert (await scene.row(saga_id)).state == "done"
    assert await scene.recorded(saga_id) == ["+b", "+d"]
    await scene.sagas.give_up(saga_id, "regret")
    await asyncio.gather(*(scene.sagas.go_on(saga_id, "compensating") for _ in range(8)))
    assert await scene.recorded(saga_id) == ["+b", "+d", "-d", "-b"]


async def test_a_compensation_that_fails_is_parked_and_goes_on_after_a_retry(scene: Scene) -> None:
    scene.saga.refused = "C"
    scene.saga.errors["-C"] = [ValueError() for _ in range(3)]
    saga_id = await scene.begin()
    parked = await scene.until(saga_id, "compensating", dead=True)
    assert (parked.attempts, parked.last_error, scene.saga.written) == (3, "ValueError", ["+A", "+b"])
    assert [row.id for row in await scene.sagas.unfinished()] == [saga_id]
    assert scene.sagas.next_step(parked.name, parked.state, parked.step) == "C"
    assert await scene.repository.retry(f"saga:{saga_id}:undo", None)
    await scene.until(saga_id, "compensated")
    assert scene.saga.written == ["+A", "+b", "-C", "-b", "-A"]
    assert await scene.sagas.unfinished() == []


async def test_a_compensation_that_is_too_late_is_asked_with_a_new_deadline_at_once(scene: Scene) -> None:
    """However long the waits between its attempts have become: they may be longer than the time that it has."""
    saga_id = await scene.begin()
    await scene.sagas.give_up(saga_id, "regret")
    await query(scene.stores, "UPDATE sagas SET deadline = deadline - interval '1 minute'")
    scene.saga.errors["-C"] = [TooLate()]
    await scene.sagas.go_on(saga_id, "compensating")
    assert (await scene.row(saga_id)).state == "compensated"


async def test_clocks_that_differ_do_not_turn_a_compensation_in_circles(scene: Scene) -> None:
    saga_id = await scene.begin()
    await scene.sagas.give_up(saga_id, "regret")
    scene.saga.errors["-C"] = [TooLate(), TooLate()]
    with pytest.raises(NotYet):
        await scene.sagas.go_on(saga_id, "compensating")


async def test_a_saga_is_decided_at_its_deadline_while_its_store_is_down(scene: Scene) -> None:
    """The wait between two attempts would be 15 s at least."""
    started = asyncio.get_running_loop().time()
    scene.saga.seconds = 1.5
    scene.saga.errors["+C"] = [StoreUnavailable("mongodb", "timeout") for _ in range(100)]
    scene.mongodb_is_down = True
    saga_id = await scene.begin()

    async def is_decided() -> bool:
        return bool((await scene.row(saga_id)).state == "compensating")

    await until(is_decided, 12)
    assert asyncio.get_running_loop().time() - started > 1
    assert (await scene.row(saga_id)).reason == "deadline"
    assert len(scene.saga.errors["+C"]) > 90


async def test_a_saga_whose_continuation_was_skipped_is_owed_it_again(scene: Scene) -> None:
    scene.saga.errors["+C"] = [ValueError() for _ in range(3)]
    saga_id = await scene.begin()
    await scene.until(saga_id, "running", dead=True)
    assert await scene.repository.skip(f"saga:{saga_id}", "sagas")
    assert (await scene.row(saga_id)).due_at is None
    await scene.sagas.owe_again(saga_id, "running")
    await scene.until(saga_id, "done")


async def test_what_an_older_release_owes_to_a_saga_is_delivered_from_the_queue_where_it_stands(scene: Scene) -> None:
    scene.saga.errors["+A"] = [NotYet()]
    saga_id = await scene.begin()
    for table in ("outbox", "outbox_streams"):
        await query(scene.stores, f"UPDATE {table} SET store = 'mongodb'")
    await scene.until(saga_id, "done")


@pytest.mark.parametrize("change", ["name = 'of the next release'", "step = 4"])
async def test_a_saga_of_another_release_waits_and_is_neither_parked_nor_undone(scene: Scene, change: str) -> None:
    saga_id = new_id()
    async with scene.unit_of_work() as uow:
        await scene.sagas.begin(uow, "diary", saga_id)
        await uow.session.execute(text(f"UPDATE sagas SET {change}"))
        await uow.commit()

    async def refused() -> bool:
        await pass_leases(scene.stores)
        return scene.outbox.counts["refused"] > 4  # more often than a saga may fail by its own fault

    await until(refused, 20)
    row = await scene.row(saga_id)
    assert (row.state, row.attempts, row.dead) == ("running", 0, False)
    assert row.last_error.startswith("not known (saga ")
    assert scene.sagas.next_step(row.name, row.state, row.step) == "-"
    with pytest.raises(Unknown):
        await scene.sagas.give_up(saga_id, "regret")
    await query(scene.stores, "UPDATE sagas SET name = 'diary', step = 0")
    await scene.until(saga_id, "done")
    assert scene.saga.written == ["+A", "+b", "+C", "+d"]


async def test_a_saga_that_has_more_steps_in_another_release_is_undone_by_that_alone(scene: Scene) -> None:
    saga_id = await scene.begin()
    await query(scene.stores, "UPDATE sagas SET step = 5")
    with pytest.raises(Unknown):
        await scene.sagas.give_up(saga_id, "regret")
    assert scene.saga.written == ["+A", "+b", "+C", "+d"]


async def test_the_age_of_the_oldest_open_saga_is_told(scene: Scene) -> None:
    await scene.begin()
    assert await scene.sagas.oldest_seconds() == 0  # it is at its end
    scene.saga.errors["+A"] = [StoreUnavailable("mongodb", "timeout")]
    scene.mongodb_is_down = True
    saga_id = await scene.begin()
    await query(scene.stores, "UPDATE sagas SET created_at = now() - interval '1 hour' WHERE id = :id", id=saga_id)
    assert 3600 <= await scene.sagas.oldest_seconds() < 3700
