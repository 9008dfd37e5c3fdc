"""A copy of the tree goes the way of a clone: each of these is made from the one before by what a document says."""

import os
from pathlib import Path

import pytest

from tests.product.copies.later import make_later
from tests.product.copies.tree import commit, copy_tree, follow, git, next_copy
from tristore.ops.parts import MANIFEST, Parts
from tristore.testing.lab import PROJECT


@pytest.fixture(scope="session")
def base() -> str:
    """The tag that the way begins at. Empty: the tree as it is, as there is no release yet that can be upgraded."""
    tag = os.environ.get("BASE", "")
    return tag if tag and git("ls-tree", tag, "tristore/ops/upgrade.py", folder=PROJECT) else ""


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, base: str) -> Path:
    return copy_tree(tmp_path_factory.mktemp("copies") / "original", base)


@pytest.fixture(scope="session")
def renamed(original: Path) -> Path:
    copy = next_copy(original, "renamed")
    follow(copy, "docs/make-it-yours.md", "A name")
    return copy


@pytest.fixture(scope="session")
def cut(renamed: Path) -> Path:
    """Without any part."""
    copy = next_copy(renamed, "cut")
    for part in Parts.of(copy).by_name if (copy / MANIFEST).exists() else ():
        follow(copy, "docs/make-it-yours.md", "Less of the sample", dots=part)
    return copy


@pytest.fixture(scope="session")
def extended(cut: Path) -> Path:
    """With notes."""
    copy = next_copy(cut, "extended")
    follow(copy, "docs/add-an-entity.md")
    commit("notes", copy)
    return copy


@pytest.fixture(scope="session")
def later(original: Path, base: str) -> Path:
    """What the original has become, where the document expects it."""
    return make_later(original, original.with_name("tristore"), base)


@pytest.fixture(scope="session")
def upgraded(extended: Path, later: Path) -> Path:
    copy = next_copy(extended, "upgraded")
    follow(copy, "docs/upgrading.md", "The steps", ARGS="tests/tristore/unit/test_later.py")
    return copy
