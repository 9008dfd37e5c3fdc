"""The fault lab knows when the machine was late, and how long a failover kept clients from their answers."""

import asyncio
import time

from tests.chaos.failovers import SOON, Outage
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


def test_who_was_late_on_a_starved_machine_is_spared_and_counted() -> None:
    machine = Machine()
    machine.beat(due=10, came=11)
    assert [machine.was_starved(at) for at in (10.5, 11.5, 13.5)] == [False, True, False]
    assert machine.spared == 1


def test_refusals_of_a_failover_end_when_nobody_was_refused_for_a_while() -> None:
    outage, later = Outage("postgresql", "kill", away=9, serves=10), 10 + 2 * SOON + 1
    refused = [(10.5, "postgresql"), (11.0, "postgresql"), (11.5, "mongodb"), (later, "postgresql")]
    assert outage.refused_for(refused, 30, None) == later - 10  # on a machine that had time it counts
    assert outage.refused_for(refused, 30, None, was_starved=lambda _: True) == 1
    going_on = [(10 + SOON * n / 2, "postgresql") for n in range(1, 9)]
    assert outage.refused_for(going_on, 30, None, was_starved=lambda _: True) == 4 * SOON
