"""Whether revisions add or take away: what they say is checked, and what takes away waits for a release."""

import subprocess
from pathlib import Path

import pytest

from tristore.migrations.history import OWN, History
from tristore.migrations.phases import misdeclared, released_revisions, too_early

VERSIONS = "migrations/versions"
CONFIG = '[tool.alembic]\nscript_location = "%(here)s/migrations"\n'
ADDS = 'op.add_column("notes", sa.Column("text", sa.String()))'
DROPS = 'op.drop_column("notes", "text")'


def revision(number: int, phase: str, does: str) -> str:
    last = f'"{number - 1:04}"' if number > 1 else "None"
    declared = f'phase = "{phase}"\n' if phase else ""
    imports = "import sqlalchemy as sa\nfrom alembic import op\n\n"
    names = f'revision = "{number:04}"\ndown_revision = {last}\n{declared}'
    return f"{imports}{names}\n\ndef upgrade() -> None:\n    {does}\n\n\ndef downgrade() -> None:\n    {DROPS}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / VERSIONS).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    return tmp_path


def history(project: Path, *revisions: tuple[str, str]) -> History:
    for number, (phase, does) in enumerate(revisions, 1):
        (project / VERSIONS / f"{number:04}_x.py").write_text(revision(number, phase, does))
    return History(project / "pyproject.toml")


@pytest.mark.parametrize("phase", ["", "both"])
def test_a_revision_that_does_not_say_what_it_is_is_found(project: Path, phase: str) -> None:
    assert list(misdeclared(history(project, ("expand", ADDS), (phase, ADDS)))) == [
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
def test_an_expand_that_takes_something_away_is_found(project: Path, does: str) -> None:
    assert list(misdeclared(history(project, ("expand", does)))) == [
        '0001 takes something away, so it must say phase = "contract"'
    ]


def test_a_downgrade_may_take_away_what_the_upgrade_adds(project: Path) -> None:
    assert list(misdeclared(history(project, ("expand", ADDS), ("contract", DROPS)))) == []


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
    project: Path, phases: str, released: set[str], refused: str
) -> None:
    made = history(project, *((phase, ADDS) for phase in phases.split()))
    found = list(too_early(made, released))
    assert [message[:4] for message in found] == [refused] * bool(refused)
    assert all("is a contract, and comes in the same release as" in message for message in found)


def test_the_newest_tag_says_what_is_released(project: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True)

    git("init", "-q")
    assert released_revisions(project, VERSIONS) == ("", frozenset())
    for number in (1, 2, 3):
        (project / VERSIONS / f"{number:04}_x.py").write_text(revision(number, "expand", ADDS))
        git("add", "-A")
        git("commit", "-q", "-m", str(number))
        git("tag", f"v1.{number}.0" if number < 3 else "not-a-release")
    assert released_revisions(project, VERSIONS) == ("v1.2.0", frozenset({"0001", "0002"}))


def test_where_there_is_no_git_nothing_is_known(project: Path) -> None:
    assert released_revisions(project, VERSIONS) == ("", frozenset())


def test_the_machinerys_own_are_declared() -> None:
    assert list(misdeclared(OWN)) == []
