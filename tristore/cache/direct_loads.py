"""Loads from the source while Redis cannot be believed: one of a key at a time, a few in all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Generic, TypeVar

from tristore.stores.postgres import within_budget

Found = TypeVar("Found")


class DirectLoads(Generic[Found]):
    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._next: dict[str, asyncio.Task[Found]] = {}

    async def load(self, key: str, load: Callable[[], Awaitable[Found]]) -> Found:
        """One load of a key at a time. Who asks meanwhile shares the next one with others: the load that is under way
        may have read before a write that the asker knows of. Raises what `load` raises, StoreUnavailable."""
        under_way = self._under_way.get(key)
        if under_way is None:
            return await self._load_alone(key, load)
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._load_next(key, load, under_way))
            self._next[key].add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next[key])

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._next.values(), return_exceptions=True)

    async def _load_next(
        self, key: str, load: Callable[[], Awaitable[Found]], under_way: asyncio.Future[None]
    ) -> Found:
        try:
            async with within_budget():
                await asyncio.wait([under_way])
        finally:
            del self._next[key]  # whoever comes from now on comes after this load has begun
        return await self._load_alone(key, load)

    async def _load_alone(self, key: str, load: Callable[[], Awaitable[Found]]) -> Found:
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            async with within_budget() if self._turns.locked() else nullcontext():
                await self._turns.acquire()
            try:
                return await load()
            finally:
                self._turns.release()
        finally:
            done.set_result(None)
            if self._under_way.get(key) is done:
                del self._under_way[key]
