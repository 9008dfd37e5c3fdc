"""How PyMongo waits: for a connection, at a condition of its pool, and until it has sent."""

import asyncio

import pytest
from pymongo.asynchronous import pool
from pymongo.lock import _async_cond_wait, _async_create_condition, _async_create_lock

from tristore.stores import mongodb  # it mends the wait


async def test_whoever_is_cancelled_twice_while_it_waits_does_not_keep_the_lock() -> None:
    assert mongodb
    condition = _async_create_condition(_async_create_lock())

    async def wait() -> None:
        async with condition:
            await _async_cond_wait(condition, 60)

    waiting = asyncio.create_task(wait())
    await steps()
    async with condition:  # so whoever is cancelled waits for the lock
        for _ in range(2):
            waiting.cancel()
            await steps()
        assert not waiting.done()  # or it would have given back a lock that it does not have
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await steps()
    assert not condition.locked()


async def test_a_wait_that_takes_too_long_is_told() -> None:
    condition = _async_create_condition(_async_create_lock())
    async with condition:
        assert not await _async_cond_wait(condition, 0.01)
        assert condition.locked()


@pytest.mark.parametrize("turns", range(5))
async def test_whoever_is_cancelled_while_it_sends_is_cancelled(turns: int) -> None:
    async def send_and_wait() -> None:
        await pool.async_sendall(Connection(), b"a command")  # type: ignore[arg-type,attr-defined]
        await asyncio.Event().wait()  # for the answer

    sending = asyncio.create_task(send_and_wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    sending.cancel()
    await steps()
    assert sending.cancelled()


class Connection:
    gettimeout = 60

    async def write(self, message: bytes) -> None:
        """At once, as to a transport."""


async def steps() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)
