"""Whether revisions add or take away: what they say is checked, and what takes away waits for a release."""

import subprocess
from pathlib import Path

import pytest

from tristore.migrations.history import OWN, History
from tristore.migrations.phases import misdeclared, released_revisions, too_early
from tristore.testing.revisions import history_in, revision

VERSIONS = "postgres/versions"
ADDS = 'op.add_column("notes", sa.Column("text", sa.String()))'
DROPS = 'op.drop_column("notes", "text")'


def numbered(*revisions: tuple[str, str]) -> dict[str, str]:
    """The texts of revisions that follow each other, by their files: each has a phase, and does something."""
    return {
        f"{number:04}_x.py": revision(
            f"{number:04}", does, phase, last=f"{number - 1:04}" if number > 1 else None, downgrade=DROPS
        )
        for number, (phase, does) in enumerate(revisions, 1)
    }


def history(folder: Path, *revisions: tuple[str, str]) -> History:
    return history_in(folder, numbered(*revisions))


@pytest.mark.parametrize("phase", ["", "both"])
def test_a_revision_that_does_not_say_what_it_is_is_found(tmp_path: Path, phase: str) -> None:
    assert list(misdeclared(history(tmp_path, ("expand", ADDS), (phase, ADDS)))) == [
        '0002 must say phase = "expand", or "contract" if it takes something away'
    ]


@pytest.mark.parametrize(
    "does",
    [
        DROPS,
        'op.drop_table("notes")',
        'op.rename_table("notes", "remarks")',
        'op.alter_column("notes", "text", new_column_name="body")',
        'op.execute("ALTER TABLE notes DROP COLUMN text")',
    ],
)
def test_an_expand_that_takes_something_away_is_found(tmp_path: Path, does: str) -> None:
    assert list(misdeclared(history(tmp_path, ("expand", does)))) == [
        '0001 takes something away, so it must say phase = "contract"'
    ]


def test_a_downgrade_may_take_away_what_the_upgrade_adds(tmp_path: Path) -> None:
    assert list(misdeclared(history(tmp_path, ("expand", ADDS), ("contract", DROPS)))) == []


@pytest.mark.parametrize(
    ("phases", "released", "refused"),
    [
        ("expand contract", set(), "0002"),
        ("expand contract", {"0001"}, ""),
        ("expand contract", {"0001", "0002"}, ""),
        ("expand contract expand", {"0001"}, ""),
        ("expand contract contract", {"0001"}, ""),
        ("expand expand contract", {"0001"}, "0003"),
    ],
)
def test_a_contract_waits_until_what_comes_before_it_is_released(
    tmp_path: Path, phases: str, released: set[str], refused: str
) -> None:
    made = history(tmp_path, *((phase, ADDS) for phase in phases.split()))
    found = list(too_early(made, released))
    assert [message[:4] for message in found] == [refused] * bool(refused)
    assert all("is a contract, and comes in the same release as" in message for message in found)


def test_the_newest_tag_says_what_is_released(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    assert released_revisions(tmp_path, VERSIONS) == ("", frozenset())
    history(tmp_path)
    for number, (name, text) in enumerate(numbered(*[("expand", ADDS)] * 3).items(), 1):
        (tmp_path / VERSIONS / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", str(number))
        git("tag", f"v1.{number}.0" if number < 3 else "not-a-release")
    assert released_revisions(tmp_path, VERSIONS) == ("v1.2.0", frozenset({"0001", "0002"}))


def test_where_there_is_no_git_nothing_is_known(tmp_path: Path) -> None:
    assert released_revisions(tmp_path, VERSIONS) == ("", frozenset())


def test_the_machinerys_own_are_declared() -> None:
    assert list(misdeclared(OWN)) == []
