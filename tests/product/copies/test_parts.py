"""All parts of the sample product are taken out of a copy of the tree. `make drill` runs this."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.product.copies.tree import git, run
from tristore.ops.parts import DROPS, MANIFEST, Part, Parts
from tristore.testing.lab import PROJECT

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (PROJECT / MANIFEST).exists(), reason="no part is left that could be taken out"),
]

MOST_OTHER_FILES = 7
"""That are changed and are not of the part: whoever takes it out reads them all."""


@pytest.fixture(scope="module")
def parts(renamed: Path) -> list[Part]:
    return list(Parts.of(renamed).by_name.values())


def test_few_files_that_are_not_of_a_part_have_to_be_read(cut: Path, parts: list[Part]) -> None:
    for part in parts:
        [done] = git("log", "-1", "--format=%H", f"--grep=without {part.name}", folder=cut).split()
        changed = git("diff", "--no-renames", "--diff-filter=DM", "--name-only", f"{done}~1", done, folder=cut)
        others = [path for path in changed.splitlines() if not part.owns(path)]
        assert len(others) <= MOST_OTHER_FILES, f"taking {part.name} out changes {others}"


def test_no_word_of_a_part_is_left(cut: Path, parts: list[Part]) -> None:
    texts = [(path, text) for path, text in Parts(cut, {}).texts() if not any(fnmatch(path, drop) for drop in DROPS)]
    assert len(texts) > 200
    left = [
        f"{path}: {found[0]!r} of the part {part.name}"
        for part in parts
        for path, text in texts
        if not any(fnmatch(path, pattern) for pattern in part.history)
        if (found := re.search("|".join((*part.words, f"(begin|end) part {part.name}")), f"{path}\n{text}"))
    ]
    assert left == []


def test_what_is_left_knows_its_rules_and_migrations(cut: Path) -> None:
    """It passes its checks, which the document has said to run. All tests run once it is upgraded: test_upgrade.py."""
    code, printed = run("make test ARGS=tests/product/unit", cut)
    assert code == 0, printed
