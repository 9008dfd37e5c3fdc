"""Bringing a small clone up to a later state of what it was cloned from."""

import subprocess
from pathlib import Path

import pytest

from tests.tristore.unit.projects import commit, git, make_project, write
from tristore.ops.clone import Refused
from tristore.ops.parts import Parts
from tristore.ops.rename import rename
from tristore.ops.upgrade import PATCH, upgrade

VERSIONS = "migrations/postgres/versions"
LINES = "".join(f"line{number} = {number}\n" for number in range(20))
FILES = {
    "config.py": 'NAME = "teapot"\n',
    "main.py": f'title = "TeaPot"\n{LINES}',
    "fruit.py": "apple = 1\n",
    "shop.py": f"a = 1\n# begin part fruit\napple = 2\n# end part fruit\n{LINES}",
    "tea.py": f"{LINES}",
    "parts.toml": '[fruit]\nfiles = ["fruit.py"]\nwords = ["apple"]\nrevisions = ["0002"]\ntables = ["apples"]\n',
    f"{VERSIONS}/0001_first.py": 'revision = "0001"\ndown_revision = None\n',
    f"{VERSIONS}/0002_apples.py": 'revision = "0002"\ndown_revision: str = "0001"\n',
    "migrations/mongodb/m0001_initial.py": "",
    "tristore/brew.py": "minutes = 3\n",
    "tristore/gone.py": "",
    "tests/tristore/test_brew.py": "minutes = 3\n",
    ".gitignore": f"{PATCH}\n",
}
NEXT = {
    "main.py": f'title = "TeaPot"\n{LINES}more = "of TeaPot"\n',
    "fruit.py": "apple = 7\n",
    "shop.py": f"a = 1\n# begin part fruit\napple = 7\n# end part fruit\n{LINES}z = 1\n",
    "new.py": "teapot = 1\n",
    "parts.toml": FILES["parts.toml"].replace('["0002"]', '["0002", "0003"]'),
    f"{VERSIONS}/0003_more_apples.py": 'revision = "0003"\ndown_revision = "0002"\n',
    f"{VERSIONS}/0004_cups.py": 'revision = "0004"\ndown_revision = "0003"\n',
    f"{VERSIONS}/0005_spoons_2_hold.py": 'revision = "0005"\ndown_revision = "0004"\n',
    "migrations/mongodb/m0002_cups.py": "",
    "tristore/brew.py": "minutes = 5\n",
    "tristore/steep.py": "",
    "tests/tristore/test_brew.py": "minutes = 5\n",
}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """It has changed the product before and after the commit that was cloned, which has the tag `cloned`."""
    origin = make_project(tmp_path / "origin", FILES | {"tea.py": "green = 1\n"})
    write(origin, {"tea.py": FILES["tea.py"]})
    commit(origin)
    git(origin, "tag", "cloned")
    write(origin, {"tea.py": FILES["tea.py"] + "black = 1\n"})
    commit(origin)
    write(origin, NEXT)
    (origin / "tristore/gone.py").unlink()
    commit(origin)
    return origin


@pytest.fixture
def clone(tmp_path: Path, origin: Path) -> Path:
    """Without the history."""
    git(tmp_path, "clone", "-q", "--branch=cloned", str(origin), "clone")
    subprocess.run(["rm", "-rf", ".git"], cwd=tmp_path / "clone", check=True)
    return make_project(tmp_path / "clone", {})


@pytest.fixture
def own(clone: Path) -> Path:
    """Renamed, without its part, and with something more."""
    rename(clone, "samovar")
    commit(clone)
    Parts.of(clone).take_out("fruit")
    commit(clone)
    own = {"cake.py": "cake = 1\n", f"{VERSIONS}/0004_cakes.py": 'revision = "0004"\ndown_revision = "0003"\n'}
    own |= {"main.py": (clone / "main.py").read_text().replace("line3 = 3", "line3 = 'ours'")}
    write(clone, own)
    commit(clone)
    return clone


def told(project: Path, origin: str = "../origin", base: str = "") -> str:
    return "\n".join(upgrade(project, origin, base))


def take(project: Path) -> None:
    git(project, "apply", "--3way", PATCH)


def test_the_machinery_and_its_tests_are_replaced(clone: Path, origin: Path) -> None:
    assert "git apply --3way upgrade.patch" in told(clone)
    for folder in ("tristore", "tests/tristore"):
        written, cloned = (
            git(project, "add", "-A") or git(project, "write-tree").strip() for project in (origin, clone)
        )
        assert git(clone, "rev-parse", f"{cloned}:{folder}") == git(origin, "rev-parse", f"{written}:{folder}")
    assert not (clone / "tristore/gone.py").exists()
    assert (clone / "main.py").read_text() == FILES["main.py"]  # until the patch is taken


def test_a_clone_that_changed_nothing_becomes_what_it_was_cloned_from(clone: Path, origin: Path) -> None:
    told(clone)
    take(clone)
    git(clone, "fetch", "-q", str(origin), "HEAD")
    assert git(clone, "diff", "--cached", "FETCH_HEAD") == ""


def test_the_patch_speaks_the_words_of_the_clone(own: Path) -> None:
    told(own)
    patch = (own / PATCH).read_text()
    assert "of Samovar" in patch
    assert "samovar = 1" in patch
    assert "teapot" not in patch.lower()
    assert "tristore/" not in patch
    take(own)
    main = (own / "main.py").read_text()
    assert 'more = "of Samovar"' in main
    assert "line3 = 'ours'" in main


def test_the_patch_has_nothing_of_a_part_that_was_taken_out(own: Path) -> None:
    told(own)
    assert "apple" not in (own / PATCH).read_text()
    take(own)
    assert (own / "shop.py").read_text() == f"a = 1\n{LINES}z = 1\n"
    assert not (own / "fruit.py").exists()
    assert not (own / "parts.toml").exists()


def test_a_part_that_the_clone_has_is_upgraded(clone: Path) -> None:
    told(clone)
    take(clone)
    assert (clone / "fruit.py").read_text() == "apple = 7\n"
    assert "0003" in (clone / "parts.toml").read_text()


def test_new_migrations_come_after_those_of_the_clone(own: Path) -> None:
    told(own)
    take(own)
    names = sorted(path.name for path in (own / VERSIONS).iterdir())
    assert names == [
        "0001_first.py",
        "0002_taken_out.py",
        "0003_without_fruit.py",
        "0004_cakes.py",
        "0005_cups.py",
        "0006_spoons_2_hold.py",
    ]
    assert (own / VERSIONS / "0005_cups.py").read_text() == 'revision = "0005"\ndown_revision = "0004"\n'
    assert (own / VERSIONS / "0006_spoons_2_hold.py").read_text() == 'revision = "0006"\ndown_revision = "0005"\n'
    assert (own / "migrations/mongodb/m0002_cups.py").exists()


def test_what_the_clone_deleted_does_not_come_back(clone: Path) -> None:
    (clone / "shop.py").unlink()
    commit(clone)
    told(clone)
    assert "shop.py" not in (clone / PATCH).read_text()
    take(clone)
    assert (clone / "new.py").exists()


def test_a_second_upgrade_brings_what_is_new_since_the_first(own: Path, origin: Path) -> None:
    told(own)
    take(own)
    commit(own)
    assert "Nothing else has changed." in told(own)
    assert not (own / PATCH).exists()
    write(origin, {"tristore/brew.py": "minutes = 7\n", "new.py": "teapot = 2\n"})
    commit(origin)
    told(own)
    patch = (own / PATCH).read_text()
    assert patch.count("diff --git") == 1
    take(own)
    assert (own / "new.py").read_text() == "samovar = 2\n"


def test_the_commit_that_was_cloned_is_found_by_its_content(clone: Path, origin: Path) -> None:
    """Three commits have its tristore/; they differ in another file."""
    assert f"those here were of {git(origin, 'log', '-1', '--format=%h', 'cloned').strip()} of" in told(clone)
    patch = (clone / PATCH).read_text()
    assert "+black = 1" in patch
    assert "green" not in patch


def test_what_came_after_the_clone_is_not_missed_where_both_changed_the_file(clone: Path) -> None:
    write(clone, {"tea.py": FILES["tea.py"].replace("line3 = 3", "line3 = 'ours'")})
    commit(clone)
    told(clone)
    take(clone)
    assert (clone / "tea.py").read_text() == FILES["tea.py"].replace("line3 = 3", "line3 = 'ours'") + "black = 1\n"


def test_a_tag_that_the_clone_knows_will_do(tmp_path: Path, origin: Path) -> None:
    git(origin, "tag", "v2")
    git(tmp_path, "clone", "-q", str(origin), "known")
    git(tmp_path / "known", "checkout", "-q", "cloned")
    told(tmp_path / "known", "v2")
    assert (tmp_path / "known/tristore/brew.py").read_text() == "minutes = 5\n"


def test_changes_that_are_not_committed_are_refused(clone: Path) -> None:
    (clone / "notes.txt").write_text("")
    with pytest.raises(Refused, match="Commit or stash"):
        told(clone)
    assert (clone / "tristore/gone.py").exists()


@pytest.mark.parametrize(
    ("origin_given", "words"),
    [
        ("", "FROM must be a folder"),
        ("--help", "FROM must be a folder"),
        ("v9", "'v9' is no folder, and no tag"),
        ("tristore", "does not appear to be a git repository"),
    ],
)
def test_what_cannot_be_upgraded_from_is_refused(clone: Path, origin: Path, origin_given: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        told(clone, origin_given)
    assert git(clone, "status", "--porcelain") == ""


def test_a_clone_that_changed_the_machinery_must_say_where_it_comes_from(clone: Path, origin: Path) -> None:
    write(clone, {"tristore/brew.py": "minutes = 4\n"})
    commit(clone)
    with pytest.raises(Refused, match="or somebody has changed\ntristore/ here.*BASE="):
        told(clone)
    assert git(clone, "status", "--porcelain") == ""
    told(clone, base=git(origin, "rev-parse", "cloned").strip())
    assert (clone / "tristore/brew.py").read_text() == "minutes = 5\n"


def test_an_older_state_is_refused(tmp_path: Path, origin: Path) -> None:
    git(tmp_path, "clone", "-q", str(origin), "newer")
    with pytest.raises(Refused, match="older than this clone"):
        told(tmp_path / "newer", "cloned")


def test_nothing_is_left_behind(clone: Path) -> None:
    told(clone)
    assert len(git(clone, "worktree", "list").splitlines()) == 1
