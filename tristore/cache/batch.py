"""Calls of one turn of the event loop go to a store together: a round trip costs more than many keys."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class Batch(Generic[Item, Answer]):
    """Calls `run` with the items of one turn, each once. It gives their answers in the same order. Its error is
    raised for everybody who waits."""

    def __init__(self, breaker: CircuitBreaker, run: Callable[[list[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._breaker = breaker
        self._run = run
        self._wanted: dict[Item, list[asyncio.Future[Answer]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Answer:
        """Raises what `run` raises, and StoreUnavailable while the breaker is open."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if not self._wanted:
            loop.call_soon(self._start)
        self._wanted.setdefault(item, []).append(answer)
        return await answer

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _start(self) -> None:
        wanted, self._wanted = self._wanted, {}
        task = asyncio.create_task(self._answer(wanted))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _answer(self, wanted: dict[Item, list[asyncio.Future[Answer]]]) -> None:
        try:
            found = await self._run_watched(list(wanted), sum(map(len, wanted.values())))
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            for waiting in wanted.values():
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            return
        for waiting, result in zip(wanted.values(), found, strict=True):
            for answer in waiting:
                if not answer.done():
                    answer.set_result(result)

    async def _run_watched(self, items: list[Item], callers: int) -> Sequence[Answer]:
        with self._breaker:
            try:
                return await self._run(items)
            except StoreUnavailable as error:
                self._breaker.count(error, callers - 1)  # each has failed: several batches would take their time
                raise
