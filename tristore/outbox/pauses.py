"""Which stores are thought to be down, and what their probes say."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from tristore.errors import StoreUnavailable

Ping = Callable[[], Awaitable[None]]
"""A store's probe: raises StoreUnavailable when the store cannot serve."""
PAUSE_SECONDS = 1.0
"""Between two probes of a paused store; also what one probe may take."""

log = structlog.get_logger()


class Pauses:
    """A store is paused while its probe fails. It is doubted after it has failed a request: then requests leave it
    alone until its relay has probed it."""

    def __init__(self, pings: Mapping[str, Ping]) -> None:
        self._pings = pings
        self._paused: set[str] = set()
        self._doubted: set[str] = set()
        self._needed: dict[str, str] = {}
        self._probing = {store: asyncio.Lock() for store in pings}

    def is_paused(self, store: str) -> bool:
        return store in self._paused

    def holds(self, store: str) -> bool:
        """Whether the store is paused or doubted."""
        return store in self._paused or store in self._doubted

    def needed(self, queue: str) -> str:
        """The store that the effects of a queue were last found to wait for; at first the one with the queue's name."""
        return self._needed.get(queue, queue)

    def need(self, queue: str, store: str) -> None:
        self._needed[queue] = store

    def doubt(self, store: str) -> bool:
        """Let the store's relay find out whether the store was at fault, or the effect. False when nothing is to be
        found out: the store is paused already, or has no probe."""
        if store not in self._pings or store in self._paused:
            return False
        self._doubted.add(store)
        return True

    def pause(self, problem: StoreUnavailable) -> None:
        if problem.store not in self._paused:
            self._paused.add(problem.store)
            log.warning("outbox_paused", store=problem.store, reason=problem.reason, cause=problem.cause)

    async def serves(self, store: str) -> bool:
        """Probe the store and end the doubt: pause the store, or end its pause."""
        problem = await self._problem(store)
        self._doubted.discard(store)
        if problem:
            self.pause(problem)
        elif store in self._paused:
            self._paused.discard(store)
            log.info("outbox_resumed", store=store)
        return problem is None

    async def is_down(self, store: str) -> bool:
        """Probe the store unless it is paused already. A store without a probe counts as up: such as PostgreSQL,
        without which there is no relay either."""
        if store not in self._pings:
            return False
        async with self._probing[store]:
            if store not in self._paused and (problem := await self._problem(store)):
                self.pause(problem)
        return store in self._paused

    async def _problem(self, store: str) -> StoreUnavailable | None:
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._pings[store]()
        except StoreUnavailable as problem:
            return problem
        except TimeoutError:
            return StoreUnavailable(store, "timeout")
        return None
