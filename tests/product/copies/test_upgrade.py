"""A copy of the tree that was renamed, cut and extended is upgraded. `make drill` runs this."""

import os
from pathlib import Path

import pytest

from tests.product.copies.later import COMMENT
from tests.product.copies.tree import git, run
from tristore.ops.rename import MACHINERY, Name

pytestmark = pytest.mark.timeout(1200)

# What knows the product as a whole: its rules, migrations, routes, document. `COPIES=all` runs everything.
WHOLE = ("unit/test_import_rules", "unit/test_released_migrations", "unit/test_rules", "unit/test_shown")
SOME = " ".join(
    f"tests/product/{name}.py" for name in (*WHOLE, "api/test_every_route", "api/test_openapi", "api/test_users")
)
TESTS = "" if os.environ.get("COPIES") == "all" else SOME


def test_the_machinery_is_the_later_one(upgraded: Path, later: Path) -> None:
    for folder in MACHINERY:
        tree = [git("rev-parse", f"HEAD:{folder.rstrip('/')}", folder=copy) for copy in (upgraded, later)]
        assert tree[0] == tree[1]


def test_what_else_has_changed_came_in_the_words_of_the_copy(upgraded: Path, original: Path) -> None:
    name, old = Name.of(upgraded), Name.of(original)
    assert name != old
    assert f"# {name.title}, since later.\n" in (upgraded / "config.py").read_text()
    assert (upgraded / "README.md").read_text().endswith(f"\n{name.title} has this line since later.\n")
    for path in ("services/personal.py", "tests/samples.py"):
        text = (upgraded / path).read_text()
        assert text.endswith(f"\n{COMMENT}\n")
        assert "notes" in text.lower()
    assert old.word not in (upgraded / "upgrade.patch").read_text().lower()


def test_nothing_of_a_part_that_was_taken_out_came_back(upgraded: Path, cut: Path) -> None:
    patch = (upgraded / "upgrade.patch").read_text()
    assert f"{COMMENT}\n" in patch
    assert f"{COMMENT} " not in patch
    added = git("diff", "--name-only", "--diff-filter=A", "HEAD~1", folder=upgraded).splitlines()
    others = [path for path in added if not path.startswith(MACHINERY)]
    assert len(others) == 1
    assert others[0].endswith("_later.py")


def test_all_of_it_passes_its_tests(upgraded: Path) -> None:
    """And its checks, which the document has said to run."""
    code, printed = run(f"make test ARGS='{TESTS}'", upgraded)
    assert code == 0, printed
    print(printed.splitlines()[-1])
