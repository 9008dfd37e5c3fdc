"""The fault lab knows when it was the machine that was late."""

import asyncio
import time

from tests.chaos.machine import BEAT_SECONDS, LATE_SECONDS, Machine


async def test_a_loop_that_stands_still_is_starved_for_as_long_as_it_did() -> None:
    async with Machine().watched() as machine:
        await asyncio.sleep(2 * BEAT_SECONDS)
        began = time.monotonic()
        time.sleep(2 * LATE_SECONDS)  # noqa: ASYNC251 - this is what it must notice
        over = time.monotonic()
        await asyncio.sleep(2 * BEAT_SECONDS)
    assert machine.lost_between(began, over + 1) >= LATE_SECONDS
    assert machine.lost_between(0, began) == 0


def test_a_beat_that_waits_for_work_is_not_starved() -> None:
    machine = Machine()
    machine.beat(due=1, came=1 + LATE_SECONDS / 2)
    assert machine.lost == 0
    machine.beat(due=2, came=4)
    assert machine.lost == 2
    machine.beat(due=5, came=5, waited=0.5)
    assert machine.lost_between(4.5, 5) == 0.5
