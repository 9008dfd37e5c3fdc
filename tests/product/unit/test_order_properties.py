"""Any interleaving of orders, their steps, and writes that land late sells each seat once. On the real databases, whose
own clocks decide what is too late."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from database.unit_of_work import UnitOfWork
from models.course import EXAMPLE, CourseBatch
from models.order import CENTS_PER_POINT, OrderIn
from models.user import Registration
from repositories.order_repo import OrderRepository
from repositories.seat_repo import SeatRepository
from services.effects import QUEUES
from services.order_effects import ForgetMarker
from services.order_saga import OrderSaga
from tests.product.people import account
from tests.under_test import fresh_databases
from tristore.errors import Conflict, NotFound, StoreUnavailable
from tristore.models import new_id
from tristore.outbox.effects import NotYet
from tristore.outbox.repository import OutboxRepository
from tristore.saga.engine import Sagas
from tristore.saga.repository import SagaRepository
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import LONG
from tristore.testing.outbox import query
from tristore.testing.stores import Servers
from wiring import Services

T = TypeVar("T")
SECONDS, TIMEOUT = 2.0, 0.5
CAPACITY = 3
EXAMPLES = 100 if LONG else 3
Fate = Literal["answers", "answer is lost", "lands late"]
FATES = st.sampled_from(["answers", "answers", "answer is lost", "lands late"])


class Seats(SeatRepository):
    """What one process asks of MongoDB: it may die before it has the answer, and what it asked may land later."""

    def __init__(self, stores: Stores, sent: list[Callable[[], Awaitable[Any]]]) -> None:
        super().__init__(stores.mongodb)
        self.sent = sent
        self.fate: Fate = "answers"

    async def change(self, *arguments: Any) -> Any:
        return await self._send(partial(super().change, *arguments))

    async def undo(self, *arguments: Any) -> bool:
        return bool(await self._send(partial(super().undo, *arguments)))

    async def forget(self, *arguments: Any) -> bool:
        return bool(await self._send(partial(super().forget, *arguments)))

    async def _send(self, call: Callable[[], Awaitable[Any]]) -> Any:
        self.sent.append(call)
        answer = await call() if self.fate != "lands late" else None
        if self.fate != "answers":
            raise StoreUnavailable("mongodb", "timeout")
        return answer


class OrderMachine(RuleBasedStateMachine):
    runner: ClassVar[asyncio.Runner]
    stores: ClassVar[Stores]
    services: ClassVar[Services]
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Callable[[], Awaitable[Any]]] = []
        outbox = OutboxRepository(self.stores.postgres, QUEUES, 12)
        self.unit_of_work = partial(UnitOfWork, self.stores.postgres, outbox.record)
        self.repository = OrderRepository(self.stores.postgres)
        self.processes = [self.process(outbox) for _ in range(2)]
        self.placed: list[uuid.UUID] = []
        self.wait(query(self.stores, "TRUNCATE outbox, outbox_streams, sagas, points_ledger, orders"))
        self.users, self.courses = self.wait(self.begin())

    def process(self, outbox: OutboxRepository) -> tuple[Sagas, Seats]:
        seats = Seats(self.stores, self.sent)
        saga = OrderSaga(orders=self.repository, seats=seats, seconds=SECONDS)
        repository = SagaRepository(self.stores.postgres)
        sagas = Sagas(unit_of_work=self.unit_of_work, repository=repository, supersede=outbox.supersede, kinds=[saga])
        return sagas, seats

    async def begin(self) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
        registrations = [Registration.model_validate(account()) for _ in range(2)]
        users = [(await self.services.users.register_user(new)).user_id for new in registrations]
        new = CourseBatch.model_validate({"courses": [EXAMPLE | {"capacity": CAPACITY}] * 2})
        return users, [course.id for course in (await self.services.courses.create(users[0], new)).items]

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @rule(target=orders, user=st.integers(0, 1), course=st.integers(0, 1), quantity=st.integers(1, 2))
    def place(self, user: int, course: int, quantity: int) -> Any:
        async def transaction() -> list[uuid.UUID]:
            wanted = OrderIn(course_id=self.courses[course], quantity=quantity)
            async with self.unit_of_work() as uow:
                try:
                    await uow.for_user(self.users[user])
                except NotFound:
                    return []
                order = await self.repository.add(uow.session, new_id(), self.users[user], wanted)
                if order is None:
                    return []
                await self.processes[0][0].begin(uow, "order", order.id)
                await uow.commit()
            return [order.id]

        placed = self.wait(transaction())
        self.placed += placed
        return multiple(*placed)

    @rule(order=orders, process=st.integers(0, 1), fate=FATES)
    def go_on(self, order: uuid.UUID, process: int, fate: Fate) -> None:
        self.processes[process][1].fate = fate
        self.wait(self.continue_(order, process))
        self.processes[process][1].fate = "answers"

    @rule(order=orders, fate=FATES)
    def both_processes_go_on(self, order: uuid.UUID, fate: Fate) -> None:
        self.processes[0][1].fate = fate

        async def both() -> None:
            await asyncio.gather(*(self.continue_(order, process) for process in range(2)))

        self.wait(both())
        self.processes[0][1].fate = "answers"

    async def continue_(self, order: uuid.UUID, process: int) -> None:
        sagas, _ = self.processes[process]
        for direction in ("running", "compensating"):
            with suppress(NotYet, StoreUnavailable):
                await sagas.go_on(order, direction)

    @rule(order=orders, reason=st.sampled_from(["by the user", "by an operator"]))
    def cancel(self, order: uuid.UUID, reason: str) -> None:
        """Also while it is pending, as an operator may."""
        with suppress(Conflict):
            self.wait(self.processes[1][0].give_up(order, reason))

    @rule(call=st.integers(0, 1000))
    def a_write_lands_again(self, call: int) -> None:
        if self.sent:
            self.wait(self.land(self.sent[-1 - call % len(self.sent)]))

    @staticmethod
    async def land(call: Callable[[], Awaitable[Any]]) -> None:
        with suppress(StoreUnavailable):
            await call()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0, SECONDS, SECONDS + TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        time.sleep(seconds)

    @rule()
    def markers_are_forgotten(self) -> None:
        self.wait(self.forget())

    async def forget(self) -> bool:
        """Whether all that are owed it are forgotten."""
        rows = await query(self.stores, "SELECT CAST(payload AS text) FROM outbox WHERE name = 'ForgetMarker'")
        owed = [ForgetMarker.model_validate_json(row[0]) for row in rows]
        seats = self.processes[0][1]
        return all([await seats.forget(effect.course_id, effect.marker, effect.until) for effect in owed])

    @rule(course=st.integers(0, 9))
    def delete_a_course(self, course: int) -> None:
        if course < len(self.courses):
            with suppress(NotFound):
                self.wait(self.services.courses.delete(self.courses[course]))

    @rule(user=st.integers(0, 9))
    def erase_a_user(self, user: int) -> None:
        if user < len(self.users):
            with suppress(NotFound):
                self.wait(self.services.privacy.erase(self.users[user]))

    @invariant()
    def no_seat_is_sold_twice(self) -> None:
        for _, taken, sold in self.wait(self.count()):
            assert sold <= taken <= CAPACITY

    async def count(self) -> list[tuple[Any, int, int]]:
        """Of each course its document, the seats taken, and those of confirmed orders, which were counted before."""
        sql = "SELECT coalesce(sum(quantity), 0) AS n FROM orders WHERE course_id = :id AND status = 'confirmed'"
        counts = []
        for course in self.courses:
            sold = (await query(self.stores, sql, id=course))[0].n
            document: Any = await self.stores.mongodb.database.seats.find_one({"_id": str(course)})
            counts.append((document, document["taken"], sold))
        return counts

    def teardown(self) -> None:
        """When all is quiet, every saga comes to its end, and what lands after that changes nothing."""
        self.wait(self.settle())
        for document, taken, sold in self.wait(self.count()):
            assert (taken, document["markers"]) == (sold, [])
        sql = (
            "SELECT o.status, s.state, o.price_cents, (SELECT coalesce(sum(points), 0) FROM points_ledger"
            " WHERE order_id = o.id) AS points FROM orders o LEFT JOIN sagas s USING (id)"
        )
        for row in self.wait(query(self.stores, sql)):
            earned = row.price_cents // CENTS_PER_POINT if row.status == "confirmed" else 0
            assert (row.status, row.state) in {("confirmed", "done"), ("cancelled", "compensated")}
            assert row.points == earned

    async def settle(self) -> None:
        async with asyncio.timeout(30):
            while await self.processes[0][0].unfinished():
                for order in self.placed:
                    await self.continue_(order, 0)
                await asyncio.sleep(0.05)
            await asyncio.gather(*(self.land(call) for call in self.sent))
            while not await self.forget():
                await asyncio.sleep(0.05)
            await asyncio.gather(*(self.land(call) for call in self.sent))


@pytest.fixture
def machine(servers: Servers) -> Iterator[type[OrderMachine]]:
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        own = runner.run(exits.enter_async_context(fresh_databases(servers, mongodb_timeout=TIMEOUT)))
        OrderMachine.runner = runner
        OrderMachine.stores = runner.run(exits.enter_async_context(open_stores(own)))
        OrderMachine.services = Services(own, OrderMachine.stores)
        yield OrderMachine
        runner.run(OrderMachine.services.close())
        runner.run(exits.aclose())


@pytest.mark.timeout(300 if EXAMPLES < 100 else 3600)
def test_any_interleaving_sells_each_seat_once(machine: type[OrderMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            phases=[Phase.generate],  # each example takes seconds: a smaller one would take minutes to find
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
