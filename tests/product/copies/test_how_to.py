"""Short pages that tell how to add something are followed word by word in a copy of the tree."""

from pathlib import Path

import pytest

from tests.product.copies.tree import copy_tree, follow

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("document", ["docs/add-an-effect.md"])
def test_what_the_page_tells_passes_its_tests(document: str, tmp_path: Path) -> None:
    follow(copy_tree(tmp_path / "copy"), document)
