"""Delivers what committed transactions owe to other stores: at once where it can, else by the relay.

Whoever holds the lease of a stream (one aggregate, one queue) applies its effects in order. The fault of a store costs
no attempt: while its probe fails, its streams wait until it is back. When it refuses although its probe passes, they
wait longer and longer. So does what only another release knows. Only an effect that fails by its own fault is counted,
and parked in the end.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from pydantic import ValidationError

from tristore.errors import StoreUnavailable
from tristore.outbox.delivery import Delivery
from tristore.outbox.effects import OTHER_RELEASE, Due, Effect, Owed, Stream, Unknown, Waits
from tristore.outbox.pauses import PAUSE_SECONDS, Pauses, Ping
from tristore.outbox.repository import LEASE_SECONDS, Leased, OutboxRepository, Outcome

STREAMS_AT_ONCE, EFFECTS_AT_ONCE, IN_FLIGHT = 64, 50, 32
LEASE_MARGIN = 1.0
ASK_SECONDS = 0.2
SWEEP_SECONDS = 5.0

log = structlog.get_logger()


class Outbox:
    def __init__(
        self,
        *,
        repository: OutboxRepository,
        targets: object,
        pings: Mapping[str, Ping],
        deadline: float,
        poll_seconds: float,
    ) -> None:
        """`targets`: what the effects' `apply` is given. `pings`: the probes of those queues that have the name of a
        store. An effect in another queue may need any store. `deadline`: seconds that a request may take to deliver."""
        self.repository = repository
        self._queues = repository.queues
        self._pauses = Pauses(pings)
        self._stores = list(pings)
        self._poll_seconds = poll_seconds
        self._to_revive = {*pings, OTHER_RELEASE}
        self._wake = {queue: asyncio.Event() for queue in self._queues}
        self._slots = {queue: asyncio.Semaphore(IN_FLIGHT) for queue in self._queues}
        self._delivery = Delivery(targets, self._pauses, self._wake, deadline)
        self._asking = asyncio.Semaphore(1)  # the relay has few connections: those who wait share one
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._swept_at = time.monotonic()
        self.counts = self._delivery.counts
        self.record = repository.record
        self.supersede = repository.supersede
        self.backlog = repository.backlog

    def start(self) -> None:
        """Start the relay: a task for each queue, so that the outage of one store does not hold back the others'
        effects."""
        self._tasks = [asyncio.create_task(self._relay(queue)) for queue in self._queues]
        self._tasks.append(asyncio.create_task(self._settle_delivered()))

    async def close(self) -> None:
        """Finish what is leased, and stop. What is still owed stays recorded."""
        self._closing.set()
        for event in self._wake.values():
            event.set()
        await self._delivery.outcomes.put(None)
        _, late = await asyncio.wait(self._tasks, timeout=LEASE_SECONDS) if self._tasks else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def deliver(self, owed: Sequence[Owed]) -> set[str]:
        """Apply now what this process holds the lease for, within the deadline; the relay does the rest. Returns the
        queues of what is due and not known to be applied. Never raises: the transaction is committed, so the request
        has succeeded."""
        return await self._delivery.deliver(owed)

    async def applied_within(self, owed: Sequence[Owed], seconds: float) -> bool:
        """Wait until a relay, in whichever process, has applied all of these that have no delay. Never raises."""
        ids = [item.id for item in owed if not item.effect.delay]
        try:
            async with asyncio.timeout(seconds):
                while await self._are_owed(ids):
                    await asyncio.sleep(ASK_SECONDS)
        except TimeoutError:
            return False
        return True

    async def caught_up(self, queue: str) -> None:
        """Wait until everything that waits in a queue now has been delivered, by whichever process. Goes on waiting
        while PostgreSQL is down: nobody knows then what is owed."""
        newest: int | None = None
        while True:
            with suppress(StoreUnavailable):
                newest = await self.repository.newest() if newest is None else newest
                if not await self.repository.is_behind(queue, newest):
                    return
            await asyncio.sleep(ASK_SECONDS)

    async def drain(self) -> None:
        """Deliver until nothing is owed but what is dead or stuck. Raises StoreUnavailable when PostgreSQL is down."""
        for store in list(self._to_revive):  # before the first look: what was stuck gets its chance
            await self._revive(store)
        self.start()
        while await self.repository.has_work():
            await asyncio.sleep(0.1)
        await self.close()

    async def _are_owed(self, ids: Sequence[int]) -> bool:
        try:
            async with self._asking:
                return await self.repository.are_owed(ids)
        except StoreUnavailable:
            return True

    async def _relay(self, queue: str) -> None:
        while not self._closing.is_set():
            try:
                busy = await self._turn(queue)
            except StoreUnavailable:  # PostgreSQL itself is down
                busy = False
            except Exception:
                log.exception("relay_failed", store=queue)
                busy = False
            if not busy or self._pauses.is_paused(queue):
                await self._rest(queue)

    async def _rest(self, queue: str) -> None:
        is_paused = self._pauses.is_paused(queue)
        event = self._closing if is_paused else self._wake[queue]
        seconds = PAUSE_SECONDS if is_paused else self._poll_seconds
        try:
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):
                await event.wait()
        except TimeoutError:
            pass
        self._wake[queue].clear()

    async def _turn(self, queue: str) -> bool:
        """Lease, apply, settle, once. Returns whether there was anything to do."""
        if self._pauses.holds(queue) and not await self._serves_again(queue):
            return False
        for store in self._to_revive & {queue, OTHER_RELEASE}:  # this release may know what the last one did not
            await self._revive(store)
        leased = await self.repository.lease(queue, STREAMS_AT_ONCE, EFFECTS_AT_ONCE)
        until = asyncio.get_running_loop().time() + LEASE_SECONDS - LEASE_MARGIN
        outcomes = await asyncio.gather(*(self._relay_stream(*item, until) for item in leased.items()))
        if outcomes:
            await self._settle(outcomes)
        elif time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            await self.repository.sweep()
        return bool(outcomes)

    async def _serves_again(self, store: str) -> bool:
        was_paused = self._pauses.is_paused(store)
        serves = await self._pauses.serves(store)
        if serves and was_paused:
            self._to_revive.add(store)
        return serves

    async def _revive(self, store: str) -> None:
        others = [queue for queue in self._queues if queue not in self._stores]
        await self.repository.revive(store, [store, *others])
        self._to_revive.discard(store)
        for queue in others:
            self._wake[queue].set()  # effects there may have waited for this store

    async def _relay_stream(self, stream: Stream, leased: Sequence[Leased], until: float) -> Outcome:
        done: list[int] = []
        error = None
        async with self._slots[stream.queue]:
            if asyncio.get_running_loop().time() > until:
                return Outcome(stream, ())  # its turn came too late: that is nobody's fault
            try:
                async with asyncio.timeout_at(until):
                    error = await self._delivery.apply(stream.queue, _parsed(leased), done)
            except (StoreUnavailable, TimeoutError) as unavailable:
                return await self._refused(stream, tuple(done), unavailable)
        return Outcome(stream, tuple(done), error)

    async def _refused(self, stream: Stream, done: tuple[int, ...], error: StoreUnavailable | TimeoutError) -> Outcome:
        """What becomes of a stream whose store is down, or refuses it although the store's probe passes."""
        if done and isinstance(error, TimeoutError):
            return Outcome(stream, done)  # the lease has run out in the middle of many: on with the next
        reason, store, within = "timeout", self._pauses.needed(stream.queue), None
        if isinstance(error, StoreUnavailable):
            reason, store = f"{error.reason} ({error.cause})" if error.cause else error.reason, error.store
            within = error.seconds if isinstance(error, Waits) else None
        if not await self._pauses.is_down(store):
            self.counts["refused"] += 1
            return Outcome(stream, done, reason, waits_for=store, refused=True, within=within)
        if store == stream.queue:
            return Outcome(stream, done)  # due at once: it is paused here, and another process may have better luck
        self._pauses.need(stream.queue, store)
        return Outcome(stream, done, reason, waits_for=store, within=within)

    async def _settle_delivered(self) -> None:
        waiting = self._delivery.outcomes
        while (outcome := await waiting.get()) is not None:
            outcomes = [outcome]
            while len(outcomes) < STREAMS_AT_ONCE and not waiting.empty():
                if (following := waiting.get_nowait()) is None:
                    waiting.put_nowait(None)
                    break
                outcomes.append(following)
            try:
                await self._settle(outcomes)
                for outcome in outcomes:
                    if not outcome.done:  # given back at once, for a relay here or elsewhere
                        self._wake[outcome.stream.queue].set()
            except StoreUnavailable:
                log.warning("not_settled", streams=len(outcomes))  # their leases run out, and the relay repeats them
            except Exception:
                log.exception("settle_failed")

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for stopped in await self.repository.settle(outcomes):
            self.counts["dead" if stopped.is_dead else "stuck"] += 1
            event = "effect_dead" if stopped.is_dead else "effect_stuck"
            log.error(event, aggregate=stopped.aggregate, store=stopped.queue, error=stopped.error)


def _parsed(leased: Iterable[Leased]) -> Iterable[Due]:
    for item in leased:
        cls = Effect.by_name.get(item.name)
        if cls is None:
            raise Unknown(item.name)
        try:
            effect = cls.model_validate_json(item.payload)
        except ValidationError:
            raise Unknown(f"payload of {item.name}") from None  # its text would hold the payload
        yield Due(item.id, effect, item.traceparent)
