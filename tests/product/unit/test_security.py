"""The table of docs/security.md is complete, and names tests that are there."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tristore.testing.lab import PROJECT

# Of ASVS 5.0.0: how many requirements each section has, and which of them are of level 3.
SECTIONS = {
    "6.1": (3, ()),
    "6.2": (12, ()),
    "6.3": (8, (5, 6, 7, 8)),
    "6.4": (6, (5, 6)),
    "6.5": (8, (6, 7, 8)),
    "6.6": (4, (4,)),
    "6.8": (4, ()),
    "7.1": (3, ()),
    "7.2": (4, ()),
    "7.3": (2, ()),
    "7.4": (5, ()),
    "7.5": (3, (3,)),
    "7.6": (2, ()),
}
ASKED = [
    f"{section}.{number}"
    for section, (most, higher) in SECTIONS.items()
    for number in range(1, most + 1)
    if number not in higher
]
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| ([12]) \| ([^|]+) \| (holds|left out) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROWS = {number: (here, why) for number, _, _, here, why in ROW.findall((PROJECT / "docs" / "security.md").read_text())}


@cache
def names_in(file: str) -> frozenset[str]:
    path = PROJECT / file if file.startswith("tests/") else PROJECT / "tests" / "product" / file
    found: Iterator[ast.AST] = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_requirement_of_the_first_two_levels_is_in_the_table() -> None:
    assert list(ROWS) == ASKED


@pytest.mark.parametrize("number", ASKED)
def test_what_holds_names_a_test_that_is_there(number: str) -> None:
    here, why = ROWS[number]
    named = TEST.findall(why)
    assert named or here == "left out", f"{number} holds, and names no test"
    assert why.count(".py::") == len(named), f"{number} names a test in another form than `file.py::test`"
    for file, name in named:
        assert name.startswith("test_")
        assert name in names_in(file), f"{number} names {name}, which is not in {file}"


def test_a_test_that_is_not_there_would_be_noticed() -> None:
    assert "test_guessing_many_accounts_is_limited_by_address" in names_in("api/test_limits.py")
    assert "test_that_nobody_wrote" not in names_in("api/test_limits.py")
