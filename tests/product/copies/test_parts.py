"""All parts of the sample product are taken out of a copy of the tree. `make test-copies` runs this."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.product.copies.tree import commit, copy_tree, git, run
from tristore.ops.parts import DROPS, MANIFEST, Part, Parts
from tristore.testing.lab import PROJECT

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (PROJECT / MANIFEST).exists(), reason="no part is left that could be taken out"),
]

# What knows the product as a whole: its rules, migrations, routes, stores, document. `COPIES=all` runs everything, also
# the tests of the machinery, which no part changes, and of faults, which take minutes.
TESTS = "" if os.environ.get("COPIES") == "all" else "tests/product/unit tests/product/api tests/product/contract"
MOST_OTHER_FILES = 7
"""That are changed and are not of the part: whoever takes it out reads them all."""


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return list(Parts.of(PROJECT).by_name.values())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, parts: list[Part]) -> Path:
    """Without any part."""
    copy = copy_tree(tmp_path_factory.mktemp("copy"))
    for part in parts:
        code, printed = run(f"make without PART={part.name}", copy)
        assert code == 0, printed
        changed = git("diff", "--no-renames", "--name-only", folder=copy).splitlines()
        others = [path for path in changed if not part.owns(path)]
        assert len(others) <= MOST_OTHER_FILES, f"taking {part.name} out changes {others}"
        commit(f"without {part.name}", copy)
    return copy


def test_no_word_of_a_part_is_left(copy: Path, parts: list[Part]) -> None:
    texts = [(path, text) for path, text in Parts(copy, {}).texts() if not any(fnmatch(path, drop) for drop in DROPS)]
    assert len(texts) > 200
    left = [
        f"{path}: {found[0]!r} of the part {part.name}"
        for part in parts
        for path, text in texts
        if not any(fnmatch(path, pattern) for pattern in part.history)
        if (found := re.search("|".join((*part.words, f"(begin|end) part {part.name}")), f"{path}\n{text}"))
    ]
    assert left == []


def test_what_is_left_passes_its_checks(copy: Path) -> None:
    code, printed = run("make check", copy)
    assert code == 0, printed


def test_what_is_left_passes_its_tests(copy: Path) -> None:
    code, printed = run(f"make test WORKERS=2 ARGS='{TESTS}'", copy)
    assert code == 0, printed
    print(printed.splitlines()[-1])
