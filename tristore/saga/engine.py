"""Sagas: use cases that change several stores, one step after the other, to the end, or back to where they began.

A row in PostgreSQL tells how far a saga is. The outbox delivers `ContinueSaga`, so the saga goes on whichever process
or store dies. A step whose outcome is unknown is asked again. A saga that is refused, or that misses its deadline,
undoes its steps in reverse order. How to add one: docs/add-a-saga.md.
"""

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from tristore import spans
from tristore.errors import Conflict, NotFound, StoreUnavailable
from tristore.outbox.effects import Effect, NotYet, Unknown, Waits
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.effects import ContinueSaga
from tristore.saga.repository import SagaRepository
from tristore.saga.tables import Direction, Progress, State

MARGIN = 1.0
"""Seconds from the deadline until a compensation is tried. The clocks of the other stores may differ, and they may
still work on what they were asked just before the deadline. A compensation that comes too early is asked again."""


class Refused(Exception):
    """A step can never succeed. The message is the reason. The saga is undone."""


class TooLate(Exception):
    """By the other store's own clock the saga's deadline has passed, and the step had no effect before it."""


@dataclass(frozen=True)
class RemoteStep:
    """A step in another store. It is asked again until its outcome is known, and may arrive late. So `do` and `undo`
    must be idempotent and heed the deadline. `do` may raise Refused; both may raise NotYet and TooLate."""

    name: str
    do: Callable[[Progress], Awaitable[None]]
    undo: Callable[[Progress], Awaitable[Sequence[Effect]]]
    """Returns what is owed once the step is known to be undone. Each needs a delay: nobody delivers it at once."""


@dataclass(frozen=True)
class PostgresStep:
    """A step in PostgreSQL, in the transaction that moves the saga: so it happens exactly once. `do` may raise
    Refused."""

    name: str
    do: Callable[[PostgresUnitOfWork, Progress], Awaitable[None]]
    undo: Callable[[PostgresUnitOfWork, Progress], Awaitable[None]]


class Saga(Protocol):
    name: str
    seconds: float
    """Seconds from its beginning to its deadline."""
    steps: Sequence[RemoteStep | PostgresStep]

    async def turned_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> None:
        """Write down that this will not be, in the transaction that turns the saga round."""


class Sagas:
    def __init__(
        self,
        *,
        unit_of_work: Callable[[], PostgresUnitOfWork],
        repository: SagaRepository,
        supersede: Callable[[AsyncSession, str], Awaitable[None]],
        kinds: Iterable[Saga],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._repository = repository
        self._supersede = supersede
        self.unfinished = repository.unfinished
        self.oldest_seconds = repository.oldest_seconds
        self._kinds = {saga.name: saga for saga in kinds}
        self.counts: Counter[str] = Counter()

    async def begin(self, uow: PostgresUnitOfWork, name: str, saga_id: uuid.UUID) -> None:
        """Begin a saga in the caller's transaction. The caller also delivers what it owes."""
        await self._repository.add(uow.session, saga_id, name, self._kinds[name].seconds)
        uow.effects.append(ContinueSaga(saga_id=saga_id))

    async def go_on(self, saga_id: uuid.UUID, direction: Direction) -> None:
        """Go on in this direction to the end, or as far as possible. Raises NotYet and StoreUnavailable; Waits while
        there is a deadline at which it is decided without the store; Unknown for another release's saga."""
        move_on = self._advance if direction == "running" else self._go_back
        while (saga := await self._repository.get(saga_id)) and saga.state == direction:
            self._kind(saga)
            try:
                with spans.step(saga.name, self.next_step(saga.name, saga.state, saga.step), saga.traceparent):
                    if not await move_on(saga):
                        return
            except StoreUnavailable as unavailable:
                if direction == "running":
                    raise Waits(unavailable, max(saga.seconds_left, 0)) from unavailable
                raise

    async def owe_again(self, saga_id: uuid.UUID, direction: Direction) -> None:
        """For a saga that is not at its end and yet is owed nothing, because an operator has skipped its effect."""
        async with self._unit_of_work() as uow:
            uow.effects.append(ContinueSaga(saga_id=saga_id, undo=direction == "compensating"))
            await uow.commit()

    async def compensate(self, uow: PostgresUnitOfWork, saga_id: uuid.UUID, reason: str) -> None:
        """Undo a saga that runs or is done, in the caller's transaction. The caller also delivers what it owes. Raises
        NotFound, Conflict when it is being undone already, and Unknown when only another release can undo it."""
        saga = await self._repository.get(saga_id, uow.session)
        if saga is None:
            raise NotFound
        if saga.state not in {"running", "done"} or not await self._turn_round(uow, saga, reason):
            raise Conflict("It is being undone already, or was, or has just gone on.")
        await self._supersede(uow.session, ContinueSaga(saga_id=saga_id).aggregate)

    async def give_up(self, saga_id: uuid.UUID, reason: str) -> None:
        """Compensate in a transaction of its own, and leave the rest to the relays. Raises NotFound, Conflict."""
        async with self._unit_of_work() as uow:
            await self.compensate(uow, saga_id, reason)
            await uow.commit()

    def next_step(self, name: str, state: State, step: int) -> str:
        """The name of the step to do or undo next; "-" at the end, and where this release does not know it."""
        steps = self._kinds[name].steps if name in self._kinds else ()
        reached = step if state == "running" else step - 1
        return steps[reached].name if state in {"running", "compensating"} and reached < len(steps) else "-"

    def _kind(self, saga: Progress) -> Saga:
        """Raises Unknown for a saga that this release does not know, or that has more steps in another one."""
        kind = self._kinds.get(saga.name)
        if kind is None or saga.step > len(kind.steps) - (saga.state == "running"):
            raise Unknown(f"saga {saga.name}")
        return kind

    async def _advance(self, saga: Progress) -> bool:
        """False when it went as far as it can go in this direction."""
        try:
            return await self._take_steps(saga)
        except (Refused, TooLate) as refused:
            async with self._unit_of_work() as uow:
                if not await self._turn_round(uow, saga, str(refused) or "deadline"):
                    return True  # another process was quicker
                await uow.commit()
        return False

    async def _take_steps(self, saga: Progress) -> bool:
        """Do one step in another store, if that is the next, and all steps in PostgreSQL that follow it."""
        if saga.seconds_left < 0:
            raise TooLate
        steps, reached = self._kinds[saga.name].steps, saga.step
        step = steps[reached]
        if isinstance(step, RemoteStep):
            await step.do(saga)
            reached += 1
        here = _leading_postgres_steps(steps[reached:])
        reached += len(here)
        state: State = "done" if reached == len(steps) else "running"
        async with self._unit_of_work() as uow:
            if not await self._repository.move(uow.session, saga, state, reached):
                return True
            for step in here:
                await step.do(uow, saga)
            await uow.commit()
        self.counts[state] += 1
        return state == "running"

    async def _turn_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> bool:
        """False when somebody else has moved the saga."""
        kind = self._kind(saga)
        is_done = saga.state == "done"
        # The refused step may have had an effect at an earlier attempt, or may still have one until the deadline.
        left = saga.step if is_done or isinstance(kind.steps[saga.step], PostgresStep) else saga.step + 1
        if not await self._undo(uow, saga, left, reason=reason, seconds=kind.seconds if is_done else None):
            return False
        await kind.turned_round(uow, saga, reason)
        wait = 0 if is_done else max(saga.seconds_left, 0) + MARGIN
        uow.effects.append(ContinueSaga(saga_id=saga.id, undo=True, after_seconds=wait))
        return True

    async def _go_back(self, saga: Progress) -> bool:
        """Undo one step in another store, if that is the next, and all steps in PostgreSQL before it."""
        step, left = self._kinds[saga.name].steps[saga.step - 1], saga.step
        owed: Sequence[Effect] = ()
        if isinstance(step, RemoteStep):
            try:
                owed = await step.undo(saga)
            except TooLate:  # nothing that was sent until now takes effect any more, so a new deadline is safe
                await self._renew(saga)
                if saga.seconds_left > 0:  # the store's clock is ahead of PostgreSQL's: do not turn in circles
                    raise NotYet from None
                return True
            left -= 1
        async with self._unit_of_work() as uow:
            if not await self._undo(uow, saga, left):
                return True
            uow.effects += owed
            await uow.commit()
        return left > 0

    async def _undo(
        self,
        uow: PostgresUnitOfWork,
        saga: Progress,
        left: int,
        *,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Move to where `left` steps are left to undo. Undo those in PostgreSQL that come next."""
        here = _leading_postgres_steps(list(reversed(self._kinds[saga.name].steps[:left])))
        left -= len(here)
        state: State = "compensating" if left else "compensated"
        if not await self._repository.move(uow.session, saga, state, left, reason=reason, seconds=seconds):
            return False
        for step in here:
            await step.undo(uow, saga)
        self.counts[state] += 1
        return True

    async def _renew(self, saga: Progress) -> None:
        seconds = self._kinds[saga.name].seconds
        async with self._unit_of_work() as uow:
            await self._repository.move(uow.session, saga, saga.state, saga.step, seconds=seconds)
            await uow.commit()


def _leading_postgres_steps(steps: Sequence[RemoteStep | PostgresStep]) -> list[PostgresStep]:
    leading = takewhile(lambda step: isinstance(step, PostgresStep), steps)
    return [step for step in leading if isinstance(step, PostgresStep)]
