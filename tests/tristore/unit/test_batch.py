"""Calls that come together go together."""

import asyncio
import time

import pytest

from tristore.cache.batch import Batch
from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable


class Squares:
    def __init__(self, breaker: CircuitBreaker | None = None) -> None:
        self.batch: Batch[int, int] = Batch(breaker or CircuitBreaker("redis", 3, 60), self.run)
        self.runs: list[list[int]] = []
        self.error: Exception | None = None

    async def run(self, items: list[int]) -> list[int]:
        self.runs.append(items)
        await asyncio.sleep(0.01)
        if self.error:
            raise self.error
        return [item * item for item in items]


async def test_calls_of_one_turn_are_one_run_and_each_gets_its_answer() -> None:
    squares = Squares()
    assert await asyncio.gather(*map(squares.batch, [3, 1, 3, 2])) == [9, 1, 9, 4]
    assert await squares.batch(5) == 25
    assert squares.runs == [[3, 1, 2], [5]]


async def test_one_who_goes_leaves_the_others_their_answers() -> None:
    squares = Squares()
    first, second = asyncio.create_task(squares.batch(1)), asyncio.create_task(squares.batch(2))
    await asyncio.sleep(0.005)
    first.cancel()
    assert await second == 4
    await squares.batch.close()


async def test_an_error_is_everybodys_and_counted_for_each() -> None:
    breaker = CircuitBreaker("redis", 3, 60)
    squares = Squares(breaker)
    squares.error = StoreUnavailable("redis", "timeout")
    results = await asyncio.gather(*map(squares.batch, [1, 2, 2]), return_exceptions=True)
    assert results == [squares.error] * 3
    assert breaker.is_open


async def test_who_is_refused_does_not_keep_the_breaker_open() -> None:
    breaker = CircuitBreaker("redis", 1, 0.1)
    breaker.count(StoreUnavailable("redis", "timeout"))
    squares = Squares(breaker)
    opened = time.monotonic()
    while breaker.is_open and time.monotonic() - opened < 5:
        refused = await asyncio.gather(*map(squares.batch, range(5)), return_exceptions=True)
        if squares.runs:
            break
        assert all(isinstance(error, StoreUnavailable) for error in refused)
        await asyncio.sleep(0.01)
    assert squares.runs == [[0, 1, 2, 3, 4]]


async def test_an_open_breaker_refuses_before_the_run() -> None:
    breaker = CircuitBreaker("redis", 1, 60)
    breaker.count(StoreUnavailable("redis", "timeout"))
    squares = Squares(breaker)
    with pytest.raises(StoreUnavailable):
        await squares.batch(1)
    assert squares.runs == []
