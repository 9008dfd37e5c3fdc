"""Any interleaving of writers, relays, crashes and late settlements keeps the promises. On the real PostgreSQL."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tristore.outbox.effects import Stream
from tristore.outbox.repository import Outcome
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import LONG
from tristore.testing.outbox import Noted, NotedLater, outbox_repository, pass_leases, query
from tristore.testing.stores import Servers, own_databases

T = TypeVar("T")
EXAMPLES = 100 if LONG else 15
AGGREGATES = st.sampled_from(["a", "b", "c"])


def on_of(aggregate: str) -> str:
    """What `Noted.on` was."""
    return aggregate.partition(":")[2]


@dataclass(eq=False)
class Work:
    """What a writer or a relay has leased: it applies one effect after the other, then settles, or dies."""

    stream: Stream
    effects: list[tuple[int, int]]
    done: list[int] = field(default_factory=list)


class OutboxMachine(RuleBasedStateMachine):
    runner: ClassVar[asyncio.Runner]
    stores: ClassVar[Stores]
    work = Bundle("work")

    def __init__(self) -> None:
        super().__init__()
        self.repository = outbox_repository(self.stores, 1000)
        self.committed: dict[str, list[int]] = defaultdict(list)
        self.applied: dict[str, list[int]] = defaultdict(list)
        self.later: set[int] = set()
        """Those with a delay, which come when their time has come, in whatever order."""
        self.number = 0
        self.wait(query(self.stores, "TRUNCATE outbox, outbox_streams"))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @rule(target=work, aggregate=AGGREGATES, count=st.integers(1, 3), commits=st.booleans())
    def write(self, aggregate: str, count: int, commits: bool) -> Any:
        """A transaction; its writer goes on to deliver inline if it holds the lease."""
        effects = [Noted(on=aggregate, number=self.number + i) for i in range(count)]
        self.number += count

        async def transaction() -> list[Work]:
            async with PostgresUnitOfWork(self.stores.postgres, self.repository.record) as uow:
                if not commits:
                    await self.repository.record(uow.session, effects)
                    return []
                uow.effects += effects
                await uow.commit()
            stream = uow.owed[0].stream
            numbered = [(owed.id, effect.number) for owed, effect in zip(uow.owed, effects, strict=True)]
            return [Work(stream, numbered)] if stream else []

        leased = self.wait(transaction())
        if commits:
            self.committed[aggregate] += [effect.number for effect in effects]
        return multiple(*leased)

    @rule(aggregate=AGGREGATES)
    def write_later(self, aggregate: str) -> None:
        async def transaction() -> None:
            async with PostgresUnitOfWork(self.stores.postgres, self.repository.record) as uow:
                uow.effects.append(NotedLater(on=aggregate, number=self.number))
                await uow.commit()

        self.wait(transaction())
        self.later.add(self.number)
        self.number += 1

    @rule(target=work, streams=st.integers(1, 3), effects=st.integers(1, 3))
    def lease(self, streams: int, effects: int) -> Any:
        leased = self.wait(self.repository.lease("mongodb", streams, effects))
        return multiple(
            *(
                Work(stream, [(item.id, Noted.model_validate_json(item.payload).number) for item in items])
                for stream, items in leased.items()
            )
        )

    @rule(work=work)
    def apply_next(self, work: Work) -> None:
        if len(work.done) < len(work.effects):
            id_, number = work.effects[len(work.done)]
            self.applied[on_of(work.stream.aggregate)].append(number)
            work.done.append(id_)

    @rule(work=consumes(work), error=st.sampled_from([None, "ValueError"]))
    def settle(self, work: Work, error: str | None) -> None:
        self.wait(self.repository.settle([Outcome(work.stream, tuple(work.done), error)]))

    @rule(first=consumes(work), second=consumes(work))
    def settle_two_at_once(self, first: Work, second: Work) -> None:
        self.wait(self.repository.settle([Outcome(work.stream, tuple(work.done)) for work in (first, second)]))

    @rule(work=consumes(work))
    def crash(self, work: Work) -> None:
        """Whoever had it is gone, between two calls to a store."""

    @rule()
    def let_every_lease_run_out(self) -> None:
        """Whoever had one goes on, not knowing."""
        self.wait(pass_leases(self.stores))

    @rule()
    def sweep(self) -> None:
        self.wait(self.repository.sweep())

    @invariant()
    def each_stream_is_applied_in_the_order_of_its_commits(self) -> None:
        for aggregate, numbers in self.applied.items():
            firsts = [number for number in dict.fromkeys(numbers) if number not in self.later]
            assert firsts == self.committed[aggregate][: len(firsts)]

    @invariant()
    def nothing_that_was_not_applied_is_forgotten(self) -> None:
        rows = self.wait(query(self.stores, "SELECT aggregate, payload->>'number' FROM outbox"))
        owed = {(on_of(aggregate), int(number)) for aggregate, number in rows}
        for aggregate, numbers in self.committed.items():
            assert {(aggregate, n) for n in numbers if n not in self.applied[aggregate]} <= owed

    @invariant()
    def pending_is_what_is_there(self) -> None:
        rows = self.wait(
            query(
                self.stores,
                "SELECT pending, (SELECT count(*) FROM outbox o WHERE o.aggregate = s.aggregate) FROM outbox_streams s",
            )
        )
        assert all(pending == there for pending, there in rows)

    def teardown(self) -> None:
        """When all is quiet, a relay delivers what is left: first what is due, then what has to wait, one by one."""
        self.deliver_what_is_due()
        while left := self.wait(query(self.stores, "SELECT payload->>'number' FROM outbox")):
            assert {int(number) for (number,) in left} <= self.later
            self.deliver_what_is_due()
        for aggregate, numbers in self.committed.items():
            assert [number for number in dict.fromkeys(self.applied[aggregate]) if number not in self.later] == numbers
        assert self.later <= {number for numbers in self.applied.values() for number in numbers}

    def deliver_what_is_due(self) -> None:
        self.wait(pass_leases(self.stores))
        while leased := self.wait(self.repository.lease("mongodb", 10, 10)):
            for stream, items in leased.items():
                self.applied[on_of(stream.aggregate)] += [
                    Noted.model_validate_json(item.payload).number for item in items
                ]
                self.wait(self.repository.settle([Outcome(stream, tuple(item.id for item in items))]))


@pytest.fixture
def machine(servers: Servers) -> Iterator[type[OutboxMachine]]:
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        own = runner.run(exits.enter_async_context(own_databases(servers)))
        OutboxMachine.runner = runner
        OutboxMachine.stores = runner.run(exits.enter_async_context(open_stores(own)))
        yield OutboxMachine
        runner.run(exits.aclose())


def test_any_interleaving_keeps_the_promises(machine: type[OutboxMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
