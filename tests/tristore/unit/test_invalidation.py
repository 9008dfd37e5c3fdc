"""What an answer waits for when Redis could not be told at once."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from tristore.cache.invalidation import Invalidate, Invalidation
from tristore.errors import StoreUnavailable
from tristore.outbox.effects import Owed


class Ended(Invalidate):
    @property
    def aggregate(self) -> str:
        return "user:1"

    @property
    def key(self) -> str:
        return "session:1"


class AnOutbox:
    """It could not deliver, and no relay does so before `relayed` is set."""

    def __init__(self) -> None:
        self.relayed = asyncio.Event()

    async def deliver(self, owed: Sequence[Owed]) -> set[str]:
        return {"redis"} if owed else set()

    async def applied_within(self, owed: Sequence[Owed], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self.relayed.wait()
        except TimeoutError:
            return False


class ACache:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.told = list[str]()
        self.heard = list[str]()

    def require(self, key: str, version: int) -> None:
        raise NotImplementedError

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("redis", "timeout")
        self.told.append(key)

    async def wait_until_heard(self, keys: Iterable[str]) -> None:
        self.heard += keys


async def deliver(outbox: AnOutbox, cache: ACache) -> None:
    owed = Owed(1, Ended(version=1, heard=True), None)
    invalidation = Invalidation(outbox=cast(Any, outbox), cache=cache, near_doubt=0)
    await invalidation.deliver([owed])


@pytest.mark.parametrize("failures", [0, 2])
async def test_this_process_tries_again_when_no_relay_comes(failures: int) -> None:
    cache = ACache(failures)
    await deliver(AnOutbox(), cache)
    assert cache.told == cache.heard == ["session:1"]


async def test_what_a_relay_has_told_is_enough() -> None:
    outbox, cache = AnOutbox(), ACache(1000)
    outbox.relayed.set()
    await deliver(outbox, cache)
    assert (cache.told, cache.failures) == ([], 1000)


async def test_the_answer_comes_in_the_end_though_nobody_reaches_redis() -> None:
    cache = ACache(1000)
    await deliver(AnOutbox(), cache)
    assert cache.told == []
