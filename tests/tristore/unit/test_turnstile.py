"""Who is let in, and what those in line are told when a store does not answer."""

import asyncio

import pytest

from tristore.bounds.turnstile import Turnstile
from tristore.errors import NotAuthenticated, Overloaded, StoreUnavailable


async def until_waiting(turnstile: Turnstile, number: int) -> None:
    async with asyncio.timeout(5):
        while turnstile.waiting != number:
            await asyncio.sleep(0)


async def test_lets_in_as_many_as_there_are_places_in_the_order_they_came() -> None:
    turnstile, leave = Turnstile(2, patience_seconds=60), asyncio.Event()
    came_in = []

    async def come(number: int) -> None:
        async with turnstile.turn():
            came_in.append(number)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(come(number))
        await until_waiting(turnstile, 3)
        while len(came_in) < 2:
            await asyncio.sleep(0)
        assert came_in == [0, 1]
        leave.set()
    assert came_in == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "served"), [(StoreUnavailable("postgresql", "timeout", "57014"), []), (NotAuthenticated(), [1, 2])]
)
async def test_those_in_line_are_told_at_once_of_a_store_that_is_unavailable(
    error: Exception, served: list[int]
) -> None:
    """And of nothing else that went wrong before them."""
    turnstile, fail = Turnstile(1, patience_seconds=60), asyncio.Event()
    let_in = []

    async def first() -> None:
        async with turnstile.turn():
            await fail.wait()
            raise error

    async def come(number: int) -> None:
        async with turnstile.turn():
            let_in.append(number)

    tasks = [asyncio.create_task(first()), asyncio.create_task(come(1)), asyncio.create_task(come(2))]
    await until_waiting(turnstile, 2)
    fail.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert let_in == served
    assert [type(result) for result in results[1:]] == [type(None) if served else StoreUnavailable] * 2
    assert [vars(result) for result in results[1:] if result] == [vars(error)] * (2 - len(served))
    let_in.clear()
    await come(3)
    assert let_in == [3]  # who comes later tries anew


async def test_who_has_waited_long_enough_is_sent_away_and_takes_no_place() -> None:
    turnstile = Turnstile(1, patience_seconds=0.05)

    async def come() -> None:
        async with turnstile.turn():
            pass

    async with turnstile.turn():
        with pytest.raises(Overloaded):
            await asyncio.create_task(come())
        assert turnstile.waiting == 0
    await come()


async def test_whoever_comes_with_many_keeps_nobody_else_waiting() -> None:
    turnstile, leave = Turnstile(1, patience_seconds=60), asyncio.Event()
    came_in = []

    async def come(who: str) -> None:
        async with turnstile.turn(who):
            came_in.append(who)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for who in ("guesser", *["guesser"] * 5, "owner", "another", "owner"):
            group.create_task(come(who))
        await until_waiting(turnstile, 8)
        leave.set()
    assert came_in[:4] == ["guesser", "guesser", "owner", "another"]
    assert came_in[4:] == ["guesser", "owner", "guesser", "guesser", "guesser"]
    assert turnstile._last_rounds == {}


async def test_who_is_known_goes_before_all_the_strangers_and_once_a_round() -> None:
    turnstile, leave = Turnstile(1, patience_seconds=60), asyncio.Event()
    came_in = []

    async def come(who: str) -> None:
        async with turnstile.turn(who, who == "owner"):
            came_in.append(who)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for who in ("first", "a", "b", "owner", "owner", "c"):
            group.create_task(come(who))
        await until_waiting(turnstile, 5)
        leave.set()
    assert came_in == ["first", "owner", "a", "b", "owner", "c"]


async def test_a_turn_that_nobody_takes_any_more_goes_to_the_next() -> None:
    turnstile = Turnstile(1, patience_seconds=60)

    async def come() -> str:
        async with turnstile.turn():
            return "was in"

    async with turnstile.turn():
        goes, stays, comes_too = (asyncio.create_task(come()) for _ in range(3))
        await until_waiting(turnstile, 3)
        stays.cancel()  # while it waits
    goes.cancel()  # its turn has come, and it has not run since
    assert await comes_too == "was in"
    assert [goes.cancelled(), stays.cancelled()] == [True, True]
    await come()
