"""The fault lab's schedule: the same for the same seed, and nothing is left out."""

import pytest

from tests.chaos.broken import VARIANTS
from tests.chaos.plans import PLANS, Course, course
from tests.chaos.schedule import EVERYTHING, Fault, rounds

NORMAL = course(3, "")


def dealt(seed: int, of: Course = NORMAL) -> list[list[Fault]]:
    return list(rounds(seed, of.plan, of.rounds, of.seconds))


def test_every_broken_variant_has_a_plan_and_every_plan_a_variant() -> None:
    assert set(PLANS) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_round_of_a_variant_has_a_fault(variant: str) -> None:
    assert all(dealt(1, course(1, variant)))


def test_the_seed_reproduces_the_schedule() -> None:
    assert dealt(1) == dealt(1)
    assert dealt(1) != dealt(2)


@pytest.mark.parametrize("seed", range(10))
def test_three_minutes_have_every_kind_of_fault_at_every_target(seed: int) -> None:
    faults = [fault for faults in dealt(seed) for fault in faults]
    assert len(faults) >= 20
    assert {(fault.kind, fault.target) for fault in faults} == set(EVERYTHING.cards)


@pytest.mark.parametrize("seed", range(10))
def test_all_end_with_their_round_and_none_strikes_what_another_has_struck(seed: int) -> None:
    for faults in dealt(seed):
        over: dict[str, float] = {}
        for fault in faults:
            assert fault.at > over.get(fault.target, 0)
            over[fault.target] = fault.at + fault.seconds
        assert max(over.values()) <= NORMAL.seconds
