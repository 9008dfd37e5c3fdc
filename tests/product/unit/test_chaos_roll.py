"""From which commit a roll begins, and what its steps are."""

import subprocess
from pathlib import Path

import pytest

from tests.chaos import upgrade
from tests.chaos.roll import MIXES, rolls
from tests.chaos.upgrade import old_commit
from tristore.testing.revisions import history_in, revision


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._git("init", "-q")

    def commit(self, version: str, more: str = "") -> str:
        (self.folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n{more}\n')
        self._git("add", "-A")
        self._git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", version)
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_without_a_name_it_is_the_commit_before_the_last_change_of_the_version(repository: Repository) -> None:
    repository.commit("1.0.0")
    last_of_it = repository.commit("1.0.0", "# more")
    repository.commit("1.1.0", "# more")
    repository.commit("1.1.0", "target-version = 'py311'")
    assert old_commit(repository.folder, "") == last_of_it


def test_a_named_commit_is_taken(repository: Repository) -> None:
    first = repository.commit("1.0.0")
    repository.commit("1.0.0", "# more")
    assert old_commit(repository.folder, "HEAD~1") == first


def test_where_git_knows_none_a_sentence_says_so_with_the_cure(repository: Repository) -> None:
    repository.commit("1.0.0")
    repository.commit("1.0.0", "# more")
    with pytest.raises(SystemExit, match=r"knows no version before this one\. .*make upgrade-test FROM=<commit>$"):
        old_commit(repository.folder, "")
    with pytest.raises(SystemExit, match=r"git knows no commit v9 here\. .*make upgrade-test FROM=<commit>$"):
        old_commit(repository.folder, "v9")


def test_a_contract_that_comes_with_its_expand_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "0001_a.py": revision("0001", "pass"),
        "0002_b.py": revision("0002", "pass", last="0001"),
        "0003_c.py": revision("0003", "pass", "contract", last="0002"),
    }
    history = history_in(repository.folder / "tree", dict(list(texts.items())[:1]))
    from_first = repository.commit("1.0.0")
    versions = repository.folder / "tree/postgres/versions"
    (versions / "0002_b.py").write_text(texts["0002_b.py"])
    from_second = repository.commit("1.1.0")
    (versions / "0003_c.py").write_text(texts["0003_c.py"])
    monkeypatch.setattr(upgrade, "PROJECT", repository.folder)
    monkeypatch.setattr(upgrade, "HISTORIES", {"tree/postgres/versions": history})
    [refused] = upgrade.contracts_too_early(from_first)
    assert refused.startswith("0003 is a contract, and comes in the same release as 0002")
    assert upgrade.contracts_too_early(from_second) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_roll_comes_through_every_mix_of_releases_and_ends_with_the_new_one(seed: int) -> None:
    """Which of the two apps is the first depends on the seed."""
    running, mixes = {"app 1": "old", "app 2": "old"}, ["old old"]
    for steps in rolls(seed, 10):
        for step in steps:
            if step.kind != "migrate":
                running[step.target] = "new" if step.kind == "roll forward" else "old"
                mixes.append(" ".join(running.values()))
    assert (set(mixes), mixes[-1]) == (set(MIXES), "new new")
    assert rolls(seed, 10)[0][0].kind == "migrate"
