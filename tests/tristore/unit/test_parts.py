"""Taking a part out of a small project."""

from pathlib import Path

import pytest

from tests.tristore.unit.projects import commit, git, make_project
from tristore.ops.clone import Refused
from tristore.ops.parts import Parts

FILES = {
    "parts.toml": """
[fruit]
files = ["fruit.py", "docs/fruit*.md"]
words = ['[fF]ruit']
revisions = ["0002"]
tables = ["fruits"]
collections = ["fruit_seen"]

[bread]
files = ["bread.py"]
words = ['bread']
""",
    "fruit.py": "class Fruit: ...\n",
    "bread.py": "bread = 1\n",
    "docs/fruit.md": "All about fruit.\n",
    "main.py": "a = 1\n# begin part fruit\nfruit = 2\n# end part fruit\nb = 3\n",
    "README.md": "Hello.\n<!-- begin part fruit -->\nFruit too.\n<!-- end part fruit -->\n",
    "migrations/postgres/versions/0001_first.py": 'revision = "0001"\ndown_revision = None\n',
    "migrations/postgres/versions/0002_fruits.py": 'revision = "0002"\ndown_revision: str = "0001"\n\nT = "fruits"\n',
    "migrations/postgres/versions/0003_more.py": 'revision = "0003"\ndown_revision = "0002"\n',
    "migrations/mongodb/m0001_initial.py": "",
    "tristore/basket.py": "fruit = 4\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path, FILES)


def test_a_part_goes_with_its_files_regions_and_tables(project: Path) -> None:
    Parts.of(project).take_out("fruit")
    changed = git(project, "status", "--porcelain").splitlines()
    assert sorted(line.split()[-1] for line in changed) == [
        "README.md",
        "docs/fruit.md",
        "fruit.py",
        "main.py",
        "migrations/mongodb/m0002_without_fruit.py",
        "migrations/postgres/versions/0002_fruits.py",
        "migrations/postgres/versions/0002_taken_out.py",
        "migrations/postgres/versions/0004_without_fruit.py",
        "parts.toml",
    ]
    assert (project / "main.py").read_text() == "a = 1\nb = 3\n"
    assert (project / "README.md").read_text() == "Hello.\n"
    emptied = (project / "migrations/postgres/versions/0002_taken_out.py").read_text()
    assert 'revision = "0002"\ndown_revision: str = "0001"' in emptied
    assert "fruits" not in emptied
    drop = (project / "migrations/postgres/versions/0004_without_fruit.py").read_text()
    assert 'down_revision = "0003"' in drop
    assert 'for table in ("fruits",):' in drop
    assert list(Parts.of(project).by_name) == ["bread"]
    assert Parts.of(project).check() == []


def test_with_the_last_part_the_manifest_goes(project: Path) -> None:
    Parts.of(project).take_out("fruit")
    commit(project)
    Parts.of(project).take_out("bread")
    assert not (project / "parts.toml").exists()
    with pytest.raises(Refused, match="no part is left"):
        Parts.of(project)


def test_a_dirty_tree_is_refused(project: Path) -> None:
    (project / "notes.txt").write_text("not committed")
    with pytest.raises(Refused, match="Commit or stash"):
        Parts.of(project).take_out("fruit")
    assert (project / "fruit.py").exists()


def test_an_unknown_part_is_refused_with_those_that_there_are(project: Path) -> None:
    with pytest.raises(Refused, match="one of fruit, bread, not 'wine'"):
        Parts.of(project).take_out("wine")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("main.py", "a = fruit\n", "main.py:1: 'fruit' belongs to the part fruit"),
        ("new.md", "Fruit\n", "new.md:1: 'Fruit' belongs"),
        ("main.py", "# begin part fruit\nfruit\n", "main.py: a region of the part fruit has no `end part fruit`"),
        ("main.py", "# end part fruit\n", "main.py:1: this mark of the part fruit has no other half"),
        ("main.py", "# begin part fruit\n# begin part fruit\n# end part fruit\n", "main.py:2: this mark"),
        ("main.py", "# begin part bread\nfruit\n# end part bread\n", "main.py:2: 'fruit' belongs to the part fruit"),
    ],
)
def test_a_word_outside_is_told_with_its_place(project: Path, name: str, text: str, told: str) -> None:
    (project / name).write_text(text)
    [line] = Parts.of(project).check()
    assert line.startswith(told)
    commit(project)
    with pytest.raises(Refused, match="would be left over"):
        Parts.of(project).take_out("fruit")
