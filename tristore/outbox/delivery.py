"""Applies effects: what a request owes at once, within its deadline, and what the relay hands in."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import structlog

from tristore import spans
from tristore.errors import StoreUnavailable
from tristore.outbox.effects import Due, Effect, Hopeless, NotYet, Owed, Stream
from tristore.outbox.pauses import Pauses
from tristore.outbox.repository import Outcome

DELIVERED_AT_ONCE = 8
"""Streams that one request applies at a time. A request with a hundred of them would else exhaust a store's
connections."""
UNSETTLED = 10_000
"""Outcomes that may wait to be written. Above, they are dropped, and the relay applies those effects once more."""

log = structlog.get_logger()


class Delivery:
    def __init__(self, targets: object, pauses: Pauses, wake: Mapping[str, asyncio.Event], deadline: float) -> None:
        """`targets`: what the effects' `apply` is given. `wake`: an event for each queue, which its relay waits for.
        `deadline`: seconds that a request may take to deliver."""
        self._targets = targets
        self._pauses = pauses
        self._wake = wake
        self._deadline = deadline
        self.outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(UNSETTLED)
        """What became of what requests have delivered, for the relay to write down."""
        self.counts: Counter[str] = Counter()

    async def deliver(self, owed: Sequence[Owed]) -> set[str]:
        """See Outbox.deliver."""
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
            self._wake[effect.queue].set()
        queues = [stream.queue for stream in streams] + [effect.queue for effect in others]
        return {queue for queue, is_applied in zip(queues, applied, strict=True) if not is_applied}

    async def apply(self, needed: str, effects: Iterable[Due], done: list[int]) -> str | None:
        """Apply in order, and add the ids to `done`. Stop when the needed store is paused or doubted. Returns the error
        of an effect that failed by its own fault. Raises StoreUnavailable and TimeoutError for the fault of a store."""
        for id_, effect, traceparent in effects:
            if self._pauses.holds(needed) and not effect.any_order:
                return None
            try:
                with spans.delivery(type(effect).__name__, effect.queue, id_, traceparent):
                    await effect.apply(self._targets)
            except (StoreUnavailable, TimeoutError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted, and parked in the end
                self.counts["failed"] += 1
                tell = log.debug if isinstance(error, NotYet) else log.warning  # what is expected is no warning
                told = _told(error)
                tell("effect_failed", effect=type(effect).__name__, id=id_, error=told)
                return told
            done.append(id_)
            self.counts["applied"] += 1
        return None

    async def _deliver_stream(self, stream: Stream, effects: Sequence[Due], slots: asyncio.Semaphore) -> bool:
        done: list[int] = []
        error = None
        needed = self._pauses.needed(stream.queue)
        try:
            async with asyncio.timeout(self._deadline), slots:
                error = await self.apply(needed, effects, done)
        except (StoreUnavailable, TimeoutError) as unavailable:
            self._doubt(unavailable.store if isinstance(unavailable, StoreUnavailable) else needed)
        try:
            self.outcomes.put_nowait(Outcome(stream, tuple(done), error))
        except asyncio.QueueFull:
            self.counts["dropped"] += 1
        return len(done) == len(effects)

    async def _overtake(self, effect: Effect, slots: asyncio.Semaphore) -> bool:
        """Apply now an effect that need not wait for its turn. False when it must wait, or could not be applied."""
        if not effect.any_order:
            return False
        try:
            async with asyncio.timeout(self._deadline), slots:
                with spans.delivery(type(effect).__name__, effect.queue):
                    await effect.apply(self._targets)
        except (StoreUnavailable, TimeoutError):
            self._doubt(effect.queue)
            return False
        except NotYet:
            log.debug("effect_not_yet", effect=type(effect).__name__)
            return False
        except Exception:
            log.exception("effect_failed", effect=type(effect).__name__)  # it stays owed: the relay counts its attempts
            return False
        return True

    def _doubt(self, store: str) -> None:
        if self._pauses.doubt(store):
            self._wake[store].set()


def _told(error: Exception) -> str:
    """Its class. What others say may hold data."""
    if isinstance(error, NotYet):
        return NotYet.__name__
    return f"{Hopeless.__name__} ({error})" if isinstance(error, Hopeless) else type(error).__name__


def _due(items: Iterable[Owed]) -> list[Due]:
    return [Due(item.id, item.effect) for item in items if not item.effect.delay]
