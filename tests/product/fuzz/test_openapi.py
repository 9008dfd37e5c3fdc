"""Every operation of the API's document, sent by nobody, a learner and an admin: each answer is as documented."""

import pytest

from tests.product.fuzz.run import CASES, DOCUMENT, OPERATIONS, ROLES, SEED, Operation, Run, accepted, takes_input
from tests.product.fuzz.visitors import Role, Site, Visitor, is_protected
from tests.samples import HELD_BACK, ONE_TIME, missing

FAIR_SHARE = 0.03


def test_the_operations_are_those_of_the_running_app(site: Site) -> None:
    assert site.session.get(f"{site.url}/openapi.json", timeout=60).json() == DOCUMENT
    assert not (message := missing(DOCUMENT["paths"])), message
    assert len(OPERATIONS) == sum(map(len, DOCUMENT["paths"].values()))


@pytest.mark.timeout(120 + CASES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_answers_are_as_documented(
    operation: Operation, role: Role, visitors: dict[Role, Visitor], runs: list[Run]
) -> None:
    run = Run(operation, role, visitors[role])
    runs.append(run)
    run.fuzz()
    fuzzed = run.statuses.copy()
    if role == "admin":  # a parameter's bounds are the same for everybody
        run.cover()
    assert not run.findings, "\n\n".join([f"FUZZ_SEED={SEED}", *run.findings.values()])
    assert fuzzed.total() >= (CASES if takes_input(operation) else 1)
    if is_protected(operation) and role != "nobody":
        assert not run.statuses[401]  # no case was lost to an ended session
    if may(role, operation):  # or else only the checks at the door are tested
        assert accepted(fuzzed) >= FAIR_SHARE * fuzzed.total(), fuzzed
    else:
        assert not accepted(run.statuses)


def may(role: Role, operation: Operation) -> bool:
    name = (operation.method.lower(), operation.path)
    if name in ONE_TIME:
        return False
    for_admins = "403" in operation.definition.raw["responses"] and name not in HELD_BACK
    return role == "admin" or not is_protected(operation) or (role == "learner" and not for_admins)
