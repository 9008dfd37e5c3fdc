"""What operators are told of a store that cannot serve."""

from typing import get_args

import pytest

from tristore.errors import NotFound, Reason, StoreUnavailable
from tristore.ops.cures import CURES, told


@pytest.mark.parametrize("reason", get_args(Reason))
def test_each_reason_has_a_cure_and_only_what_is_unreachable_is_to_be_started(reason: Reason) -> None:
    line = told(StoreUnavailable("postgresql", reason, "25006"))
    assert line == f"postgresql is not available ({reason}, 25006). {CURES[reason]}"
    assert ("Start it" in line) == (reason == "unreachable")


def test_without_a_cause_none_is_told_and_other_errors_speak_for_themselves() -> None:
    assert told(StoreUnavailable("redis", "busy")).startswith("redis is not available (busy). ")
    assert told(NotFound("There is no such saga.")) == "There is no such saga."
