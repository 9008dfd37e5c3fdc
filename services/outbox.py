"""Delivers what committed transactions owe to Redis and MongoDB: at once where it can, else by the relay.

A stream (one aggregate, one store) is applied in order by whoever holds its lease. A store that does not answer costs
no attempt: its streams wait until it is back. Only an effect that fails by its own fault is counted, and parked.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import cast, get_args

import structlog

from models.outbox import Owed, Stream, TargetStore
from repositories.outbox_repo import LEASE_SECONDS, Leased, OutboxRepository, Outcome
from services.effects import Applicable, Targets
from services.errors import StoreUnavailable

STORES: tuple[TargetStore, ...] = get_args(TargetStore)
STREAMS_AT_ONCE, EFFECTS_AT_ONCE, IN_FLIGHT = 64, 50, 32
DELIVERED_AT_ONCE = 8
"""Streams that one request applies at a time. Who ends a hundred sessions would else exhaust Redis' connections."""
LEASE_MARGIN = 1.0
PAUSE_SECONDS = 1.0
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
        self._paused: set[TargetStore] = set()
        self._wake = {store: asyncio.Event() for store in STORES}
        self._slots = {store: asyncio.Semaphore(IN_FLIGHT) for store in STORES}
        self._probing = {store: asyncio.Lock() for store in STORES}
        self._outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(UNSETTLED)
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._swept_at = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.record = repository.record
        self.supersede = repository.supersede

    def start(self) -> None:
        """Start the relay: a task for each store, so that one's outage does not hold back the other's effects."""
        self._tasks = [asyncio.create_task(self._relay(store)) for store in STORES]
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
        Returns the stores of what is not known to be applied. Never raises: the transaction is committed, so the
        request has succeeded."""
        streams: dict[Stream, list[tuple[int, Applicable]]] = {}
        for item in owed:
            if item.stream:
                streams.setdefault(item.stream, []).append((item.id, cast(Applicable, item.effect)))
        others = [cast(Applicable, item.effect) for item in owed if not item.stream]
        slots = asyncio.Semaphore(DELIVERED_AT_ONCE)
        applied = await asyncio.gather(
            *(self._deliver_stream(stream, effects, slots) for stream, effects in streams.items()),
            *(self._overtake(effect, slots) for effect in others),
        )
        for effect in others:
            self._wake[effect.store].set()
        stores = [stream.store for stream in streams] + [effect.store for effect in others]
        return {store for store, is_applied in zip(stores, applied, strict=True) if not is_applied}

    async def applied_within(self, owed: Iterable[Owed], seconds: float) -> bool:
        """Wait until these are applied, by whichever process. False when they are not in time, or nobody knows."""
        ids = [item.id for item in owed]
        try:
            async with asyncio.timeout(seconds):
                while await self._repository.are_owed(ids):
                    await asyncio.sleep(0.05)
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    async def backlog(self) -> dict[str, float]:
        """See OutboxRepository.backlog."""
        return await self._repository.backlog()

    async def drain(self) -> None:
        """Deliver until nothing is owed but what is dead. Raises StoreUnavailable when PostgreSQL is down."""
        self.start()
        while (state := await self._repository.backlog())["backlog"] > state["parked"]:
            await asyncio.sleep(0.1)
        await self.close()

    async def _deliver_stream(
        self, stream: Stream, effects: Sequence[tuple[int, Applicable]], slots: asyncio.Semaphore
    ) -> bool:
        done: list[int] = []
        error = None
        try:
            async with asyncio.timeout(self._deadline), slots:
                error = await self._apply(stream.store, effects, done)
        except (StoreUnavailable, TimeoutError) as unavailable:
            if _is_about(unavailable, stream.store):
                self._pause(stream.store)  # the relay finds out whether it was the store or this effect
        try:
            self._outcomes.put_nowait(Outcome(stream, tuple(done), error))
        except asyncio.QueueFull:
            self.counts["dropped"] += 1
        return len(done) == len(effects)

    async def _overtake(self, effect: Applicable, slots: asyncio.Semaphore) -> bool:
        """Apply now what need not wait for its turn. False when it must, or could not be applied."""
        if not effect.any_order:
            return False
        try:
            async with asyncio.timeout(self._deadline), slots:
                await effect.apply(self._targets)
        except (StoreUnavailable, TimeoutError):
            self._pause(effect.store)
            return False
        except Exception:
            log.exception("effect_failed", effect=type(effect).__name__)  # it stays owed: the relay counts its attempts
            return False
        return True

    async def _apply(
        self, store: TargetStore, effects: Iterable[tuple[int, Applicable]], done: list[int]
    ) -> str | None:
        """Apply in order and note the ids in `done`. Returns why one failed by its own fault. Raises
        StoreUnavailable."""
        for id_, effect in effects:
            if store in self._paused and not effect.any_order:
                return None
            try:
                await effect.apply(self._targets)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted, and parked in the end
                self.counts["failed"] += 1
                log.warning("effect_failed", effect=type(effect).__name__, id=id_, error=type(error).__name__)
                return type(error).__name__
            done.append(id_)
            self.counts["applied"] += 1
        return None

    def _pause(self, store: TargetStore) -> None:
        if store not in self._paused:
            self._paused.add(store)
            log.warning("outbox_paused", store=store)

    async def _relay(self, store: TargetStore) -> None:
        while not self._closing.is_set():
            try:
                busy = await self._turn(store)
            except StoreUnavailable:  # PostgreSQL's turn to be down
                busy = False
            except Exception:
                log.exception("relay_failed", store=store)
                busy = False
            if not busy or store in self._paused:
                await self._rest(store)

    async def _rest(self, store: TargetStore) -> None:
        event = self._closing if store in self._paused else self._wake[store]
        seconds = PAUSE_SECONDS if store in self._paused else self._poll_seconds
        try:
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):
                await event.wait()
        except TimeoutError:
            pass
        self._wake[store].clear()

    async def _turn(self, store: TargetStore) -> bool:
        """Lease, apply, settle, once. Returns whether there was anything to do."""
        if store in self._paused:
            if not await self._answers(store):
                return False
            self._paused.discard(store)
            log.info("outbox_resumed", store=store)
        leased = await self._repository.lease(store, STREAMS_AT_ONCE, EFFECTS_AT_ONCE)
        until = asyncio.get_running_loop().time() + LEASE_SECONDS - LEASE_MARGIN
        outcomes = await asyncio.gather(*(self._relay_stream(*item, until) for item in leased.items()))
        if outcomes:
            await self._settle(outcomes)
        elif time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            await self._repository.sweep()
        return bool(outcomes)

    async def _relay_stream(self, stream: Stream, leased: Sequence[Leased], until: float) -> Outcome:
        done: list[int] = []
        error = None
        async with self._slots[stream.store]:
            try:
                async with asyncio.timeout_at(until):
                    error = await self._apply(stream.store, _parsed(leased), done)
            except StoreUnavailable as unavailable:
                error = await self._blame(unavailable, stream.store)
            except TimeoutError:
                pass  # the lease runs out: give it back with what was done
            except ValueError as invalid:  # a payload that this release cannot read, or an effect it does not know
                error = type(invalid).__name__
        return Outcome(stream, tuple(done), error)

    async def _blame(self, unavailable: StoreUnavailable, store: TargetStore) -> str | None:
        """Pause the store if it is down. If it is well, the effect is to blame: return why."""
        if not _is_about(unavailable, store):
            return None
        async with self._probing[store]:
            if store in self._paused:
                return None
            if unavailable.reason in {"timeout", "unreachable"} and await self._answers(store):
                return unavailable.reason
            self._pause(store)
            return None

    async def _answers(self, store: TargetStore) -> bool:
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._pings[store]()
        except (StoreUnavailable, TimeoutError):
            return False
        return True

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
            except StoreUnavailable:
                log.warning("not_settled", streams=len(outcomes))  # their leases run out, and the relay repeats them
            except Exception:
                log.exception("settle_failed")

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for aggregate, store, error in await self._repository.settle(outcomes):
            self.counts["dead"] += 1
            log.error("effect_dead", aggregate=aggregate, store=store, error=error)


def _is_about(error: Exception, store: TargetStore) -> bool:
    # A saga's step asks PostgreSQL too, whose outage is not this store's, and no fault of the saga's.
    return not isinstance(error, StoreUnavailable) or error.store == store


def _parsed(leased: Iterable[Leased]) -> Iterable[tuple[int, Applicable]]:
    for item in leased:
        cls = Applicable.by_name.get(item.name)
        if cls is None:
            raise ValueError(f"unknown effect {item.name}")
        yield item.id, cls.model_validate_json(item.payload)
