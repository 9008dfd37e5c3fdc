"""Delivers what committed transactions owe to Redis and MongoDB: at once where it can, else by the relay.

A stream (one aggregate, one store) is applied in order by whoever holds its lease. A store's fault costs no attempt:
while its probe fails its streams wait until it is back; while it refuses although its probe passes, they wait longer
and longer. Only an effect that fails by its own fault is counted, and parked.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import cast

import structlog

from services.effects import Targets
from tristore.errors import StoreName, StoreUnavailable
from tristore.outbox.effects import Effect, NotYet, Owed, Stream, Waits
from tristore.outbox.repository import LEASE_SECONDS, Leased, OutboxRepository, Outcome
from tristore.outbox.tables import TARGETS, TargetStore

STREAMS_AT_ONCE, EFFECTS_AT_ONCE, IN_FLIGHT = 64, 50, 32
DELIVERED_AT_ONCE = 8
"""Streams that one request applies at a time. Who ends a hundred sessions would else exhaust Redis' connections."""
LEASE_MARGIN = 1.0
PAUSE_SECONDS = 1.0
ASK_SECONDS = 0.2
SWEEP_SECONDS = 5.0
UNSETTLED = 10_000
"""Outcomes that may wait to be written. Above, they are dropped, and the relay applies those effects once more."""

log = structlog.get_logger()


class Outbox:
    def __init__(
        self,
        *,
        repository: OutboxRepository,
        targets: Targets,
        pings: Mapping[TargetStore, Callable[[], Awaitable[None]]],
        deadline: float,
        poll_seconds: float,
    ) -> None:
        self._repository = repository
        self._targets = targets
        self._pings = pings
        self._deadline = deadline
        self._poll_seconds = poll_seconds
        self._paused: set[str] = set()
        """Stores whose probe has failed."""
        self._doubted: set[str] = set()
        """Stores that have just failed a request: requests leave them alone until their relay has probed them."""
        self._needed: dict[TargetStore, StoreName] = {}
        """The store that sagas were last found to wait for."""
        self._to_revive = set(TARGETS)
        self._wake = {target: asyncio.Event() for target in TARGETS}
        self._slots = {target: asyncio.Semaphore(IN_FLIGHT) for target in TARGETS}
        self._probing = {store: asyncio.Lock() for store in pings}
        self._asking = asyncio.Semaphore(1)  # of the relay's few connections, those who wait share one
        self._outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(UNSETTLED)
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._swept_at = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.record = repository.record
        self.supersede = repository.supersede

    def start(self) -> None:
        """Start the relay: a task for each target, so that one's outage does not hold back the others' effects."""
        self._tasks = [asyncio.create_task(self._relay(target)) for target in TARGETS]
        self._tasks.append(asyncio.create_task(self._settle_delivered()))

    async def close(self) -> None:
        """Finish what is leased, and stop. What is still owed stays recorded."""
        self._closing.set()
        for event in self._wake.values():
            event.set()
        await self._outcomes.put(None)
        _, late = await asyncio.wait(self._tasks, timeout=LEASE_SECONDS) if self._tasks else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def deliver(self, owed: Sequence[Owed]) -> set[TargetStore]:
        """Apply now what this process holds the lease for, within the deadline (seconds); the relay does the rest.
        Returns the targets of what is due and not known to be applied. Never raises: the transaction is committed, so
        the request has succeeded."""
        streams: dict[Stream, list[Owed]] = {}
        for item in owed:
            item.effect.at_once(self._targets)
            if item.stream:
                streams.setdefault(item.stream, []).append(item)
        others = [item.effect for item in owed if not item.stream and not item.effect.delay]
        slots = asyncio.Semaphore(DELIVERED_AT_ONCE)
        applied = await asyncio.gather(
            *(self._deliver_stream(stream, _due(items), slots) for stream, items in streams.items()),
            *(self._overtake(effect, slots) for effect in others),
        )
        for effect in others:
            self._wake[effect.store].set()
        stores = [stream.store for stream in streams] + [effect.store for effect in others]
        return {store for store, is_applied in zip(stores, applied, strict=True) if not is_applied}

    async def applied_within(self, owed: Sequence[Owed], seconds: float) -> bool:
        """Wait until a relay, in whichever process, has applied all of these but those with a delay. Never raises."""
        ids = [item.id for item in owed if not item.effect.delay]
        try:
            async with asyncio.timeout(seconds):
                while await self._are_owed(ids):
                    await asyncio.sleep(ASK_SECONDS)
        except TimeoutError:
            return False
        return True

    async def caught_up(self, target: TargetStore) -> None:
        """Wait until what is owed to a store now has been delivered, by whichever process. Also while PostgreSQL is
        down: nobody knows what is owed then."""
        newest: int | None = None
        while True:
            with suppress(StoreUnavailable):
                newest = await self._repository.newest() if newest is None else newest
                if not await self._repository.is_behind(target, newest):
                    return
            await asyncio.sleep(ASK_SECONDS)

    async def backlog(self) -> dict[str, float]:
        """See OutboxRepository.backlog."""
        return await self._repository.backlog()

    async def drain(self) -> None:
        """Deliver until nothing is owed but what is dead or stuck. Raises StoreUnavailable when PostgreSQL is down."""
        for target in TARGETS:  # before the first look: what was stuck gets its chance
            await self._revive(target)
        self.start()
        while await self._repository.has_work():
            await asyncio.sleep(0.1)
        await self.close()

    async def _are_owed(self, ids: Sequence[int]) -> bool:
        try:
            async with self._asking:
                return await self._repository.are_owed(ids)
        except StoreUnavailable:
            return True

    async def _deliver_stream(
        self, stream: Stream, effects: Sequence[tuple[int, Effect]], slots: asyncio.Semaphore
    ) -> bool:
        done: list[int] = []
        error = None
        needed = self._needed.get(stream.store, stream.store)
        try:
            async with asyncio.timeout(self._deadline), slots:
                error = await self._apply(needed, effects, done)
        except (StoreUnavailable, TimeoutError) as unavailable:
            self._doubt(unavailable.store if isinstance(unavailable, StoreUnavailable) else needed)
        try:
            self._outcomes.put_nowait(Outcome(stream, tuple(done), error))
        except asyncio.QueueFull:
            self.counts["dropped"] += 1
        return len(done) == len(effects)

    async def _overtake(self, effect: Effect, slots: asyncio.Semaphore) -> bool:
        """Apply now what need not wait for its turn. False when it must, or could not be applied."""
        if not effect.any_order:
            return False
        try:
            async with asyncio.timeout(self._deadline), slots:
                await effect.apply(self._targets)
        except (StoreUnavailable, TimeoutError):
            self._doubt(effect.store)
            return False
        except Exception:
            log.exception("effect_failed", effect=type(effect).__name__)  # it stays owed: the relay counts its attempts
            return False
        return True

    async def _apply(self, needed: str, effects: Iterable[tuple[int, Effect]], done: list[int]) -> str | None:
        """Apply in order and note the ids in `done`; stop when the needed store is held. Returns why one failed by its
        own fault. Raises StoreUnavailable and TimeoutError for the fault of a store."""
        for id_, effect in effects:
            if needed in self._paused | self._doubted and not effect.any_order:
                return None
            try:
                await effect.apply(self._targets)
            except (StoreUnavailable, TimeoutError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted, and parked in the end
                self.counts["failed"] += 1
                tell = log.debug if isinstance(error, NotYet) else log.warning  # what is expected is no warning
                tell("effect_failed", effect=type(effect).__name__, id=id_, error=type(error).__name__)
                return type(error).__name__
            done.append(id_)
            self.counts["applied"] += 1
        return None

    def _doubt(self, store: str) -> None:
        """Let its relay find out whether it was the store, or this effect."""
        if store in self._pings and store not in self._paused:
            self._doubted.add(store)
            self._wake[cast(TargetStore, store)].set()

    def _pause(self, problem: StoreUnavailable) -> None:
        if problem.store not in self._paused:
            self._paused.add(problem.store)
            log.warning("outbox_paused", store=problem.store, reason=problem.reason, cause=problem.cause)

    async def _relay(self, target: TargetStore) -> None:
        while not self._closing.is_set():
            try:
                busy = await self._turn(target)
            except StoreUnavailable:  # PostgreSQL's turn to be down
                busy = False
            except Exception:
                log.exception("relay_failed", store=target)
                busy = False
            if not busy or target in self._paused:
                await self._rest(target)

    async def _rest(self, target: TargetStore) -> None:
        event = self._closing if target in self._paused else self._wake[target]
        seconds = PAUSE_SECONDS if target in self._paused else self._poll_seconds
        try:
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):
                await event.wait()
        except TimeoutError:
            pass
        self._wake[target].clear()

    async def _turn(self, target: TargetStore) -> bool:
        """Lease, apply, settle, once. Returns whether there was anything to do."""
        if target in self._paused | self._doubted and not await self._serves(target):
            return False
        if target in self._to_revive:
            await self._revive(target)
        leased = await self._repository.lease(target, STREAMS_AT_ONCE, EFFECTS_AT_ONCE)
        until = asyncio.get_running_loop().time() + LEASE_SECONDS - LEASE_MARGIN
        outcomes = await asyncio.gather(*(self._relay_stream(*item, until) for item in leased.items()))
        if outcomes:
            await self._settle(outcomes)
        elif time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            await self._repository.sweep()
        return bool(outcomes)

    async def _serves(self, store: TargetStore) -> bool:
        problem = await self._problem(store)
        self._doubted.discard(store)
        if problem:
            self._pause(problem)
        elif store in self._paused:
            self._paused.discard(store)
            self._to_revive.add(store)
            log.info("outbox_resumed", store=store)
        return problem is None

    async def _revive(self, target: TargetStore) -> None:
        await self._repository.revive(target)
        self._to_revive.discard(target)
        self._wake["sagas"].set()  # some may have waited for this store

    async def _relay_stream(self, stream: Stream, leased: Sequence[Leased], until: float) -> Outcome:
        done: list[int] = []
        error = None
        async with self._slots[stream.store]:
            if asyncio.get_running_loop().time() > until:
                return Outcome(stream, ())  # its turn came too late: nobody's fault
            try:
                async with asyncio.timeout_at(until):
                    error = await self._apply(stream.store, _parsed(leased), done)
            except (StoreUnavailable, TimeoutError) as unavailable:
                return await self._refused(stream, tuple(done), unavailable)
            except ValueError as invalid:  # a payload that this release cannot read, or an effect it does not know
                error = type(invalid).__name__
        return Outcome(stream, tuple(done), error)

    async def _refused(self, stream: Stream, done: tuple[int, ...], error: StoreUnavailable | TimeoutError) -> Outcome:
        """What becomes of a stream whose store is down, or refuses it while its probe passes."""
        if done and isinstance(error, TimeoutError):
            return Outcome(stream, done)  # the lease has run out in the middle of many: on with the next
        reason, store, within = "timeout", cast(StoreName, self._needed.get(stream.store, stream.store)), None
        if isinstance(error, StoreUnavailable):
            reason, store = f"{error.reason} ({error.cause})" if error.cause else error.reason, error.store
            within = error.seconds if isinstance(error, Waits) else None
        if not await self._is_down(store):
            self.counts["refused"] += 1
            return Outcome(stream, done, reason, waits_for=store, refused=True, within=within)
        if store == stream.store:
            return Outcome(stream, done)  # due at once: it is paused here, and another process may have better luck
        self._needed[stream.store] = store
        return Outcome(stream, done, reason, waits_for=store, within=within)

    async def _is_down(self, store: str) -> bool:
        if store not in self._pings:  # PostgreSQL, without which there is no relay either
            return False
        async with self._probing[cast(TargetStore, store)]:
            if store not in self._paused and (problem := await self._problem(cast(TargetStore, store))):
                self._pause(problem)
        return store in self._paused

    async def _problem(self, store: TargetStore) -> StoreUnavailable | None:
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._pings[store]()
        except StoreUnavailable as problem:
            return problem
        except TimeoutError:
            return StoreUnavailable(cast(StoreName, store), "timeout")
        return None

    async def _settle_delivered(self) -> None:
        while (outcome := await self._outcomes.get()) is not None:
            outcomes = [outcome]
            while len(outcomes) < STREAMS_AT_ONCE and not self._outcomes.empty():
                if (following := self._outcomes.get_nowait()) is None:
                    self._outcomes.put_nowait(None)
                    break
                outcomes.append(following)
            try:
                await self._settle(outcomes)
                for outcome in outcomes:
                    if not outcome.done:  # given back at once, for a relay here or elsewhere
                        self._wake[outcome.stream.store].set()
            except StoreUnavailable:
                log.warning("not_settled", streams=len(outcomes))  # their leases run out, and the relay repeats them
            except Exception:
                log.exception("settle_failed")

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for aggregate, store, error, is_dead in await self._repository.settle(outcomes):
            self.counts["dead" if is_dead else "stuck"] += 1
            log.error("effect_dead" if is_dead else "effect_stuck", aggregate=aggregate, store=store, error=error)


def _due(items: Iterable[Owed]) -> list[tuple[int, Effect]]:
    return [(item.id, item.effect) for item in items if not item.effect.delay]


def _parsed(leased: Iterable[Leased]) -> Iterable[tuple[int, Effect]]:
    for item in leased:
        cls = Effect.by_name.get(item.name)
        if cls is None:
            raise ValueError(f"unknown effect {item.name}")
        yield item.id, cls.model_validate_json(item.payload)
