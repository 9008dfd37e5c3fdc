"""The product of a copy of the tree gets another name. `make drill` runs this."""

import re
from pathlib import Path

import pytest

from tests.product.copies.tree import git, next_copy, run
from tristore.ops.rename import MACHINERY, Name

pytestmark = pytest.mark.timeout(900)

OTHER = "A" + "z" * 19
"""As long as a name may be, and the last where imports are sorted."""


@pytest.fixture(scope="module")
def old(original: Path) -> Name:
    return Name.of(original)


def test_no_word_of_the_old_name_is_left(renamed: Path, original: Path, old: Name) -> None:
    assert Name.of(renamed) != old
    found = f"git grep -il {old.word} -- . " + " ".join(f"':!{folder}'" for folder in MACHINERY)
    assert len(run(found, original)[1].splitlines()) > 20
    assert run(found, renamed) == (1, "")
    assert old.word not in git("ls-files", folder=renamed).lower()


def test_the_machinery_and_its_tests_are_as_they_were(renamed: Path, original: Path) -> None:
    for folder in MACHINERY:
        tree = [git("rev-parse", f"HEAD:{folder.rstrip('/')}", folder=copy) for copy in (renamed, original)]
        assert tree[0] == tree[1]


def test_what_is_renamed_passes_the_tests_that_say_the_name(renamed: Path) -> None:
    """And its checks, which the document has said to run."""
    word = Name.of(renamed).word
    tests = git("grep", "-il", word, "--", "tests/product/*/test_*.py", folder=renamed).split()
    assert tests
    code, printed = run(f"make test ARGS='{' '.join(tests)} tests/product/unit/test_image.py'", renamed)
    assert code == 0, printed
    assert re.search(r"\d passed", printed)


def test_another_name_may_follow_and_the_first_may_come_back(renamed: Path) -> None:
    copy = next_copy(renamed, "renamed again")
    for name, words in ((Name.of(copy).title, "already"), (OTHER, OTHER), (Name.of(copy).title, "now")):
        code, printed = run(f"make rename NAME={name}", copy)
        assert code == 0, printed
        assert words in printed
        code, printed = run(".venv/bin/ruff check . && .venv/bin/ruff format --check .", copy)
        assert code == 0, printed
        git("commit", "-q", "--allow-empty", "-am", name, folder=copy)
    assert git("diff", git("rev-parse", "HEAD", folder=renamed).strip(), folder=copy) == ""
