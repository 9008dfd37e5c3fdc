"""What the linter of migrations refuses, and what it may be told to take."""

from pathlib import Path

import pytest

from tristore.migrations import squawk
from tristore.migrations.history import OWN
from tristore.testing.revisions import history_in, revision

TABLE = 'op.create_table("things", sa.Column("id", sa.Uuid(), primary_key=True), sa.Column("level", sa.String(2)))'
INDEX = 'op.create_index("ix_things_level", "things", ["level"])'
CONCURRENT = """with op.get_context().autocommit_block():
    op.create_index("ix_things_level", "things", ["level"], postgresql_concurrently=True, if_not_exists=True)"""
DROP = 'op.drop_column("things", "level")'
REASON = '[more]\nrequire-concurrent-index-creation = "a few rows"\n'


def complaints(folder: Path, upgrade: str, phase: str = "expand", excused: str = "") -> list[str]:
    """About a revision that comes after the one that makes the table."""
    revisions = {"0001_things.py": revision("0001", TABLE), "0002_more.py": revision("0002", upgrade, phase, "0001")}
    return list(squawk.complaints(history_in(folder, revisions, excused)))


@pytest.mark.parametrize(
    ("upgrade", "rule"),
    [
        (INDEX, "require-concurrent-index-creation"),
        (DROP, "ban-drop-column"),
        ('op.alter_column("things", "level", new_column_name="grade")', "renaming-column"),
        ('op.alter_column("things", "level", nullable=False)', "adding-not-nullable-field"),
        ('op.create_check_constraint("level", "things", "level <> \'\'")', "constraint-missing-not-valid"),
        ('op.add_column("things", sa.Column("grade", sa.String(2), nullable=False))', "adding-required-field"),
        ('op.alter_column("things", "level", type_=sa.Integer())', "changing-column-type"),
        ('op.execute("ALTER TABLE things ADD grade int, WHAT")', "syntax-error"),
    ],
)
def test_what_holds_up_the_service_or_breaks_the_last_release_is_refused(
    tmp_path: Path, upgrade: str, rule: str
) -> None:
    told = complaints(tmp_path, upgrade)
    assert told
    assert told[0].startswith(f"0002_more.py: {rule}: ")


@pytest.mark.parametrize(
    ("upgrade", "phase"),
    [(TABLE.replace("things", "others"), "expand"), (CONCURRENT, "expand"), (DROP, "contract")],
)
def test_what_harms_nobody_is_not(tmp_path: Path, upgrade: str, phase: str) -> None:
    assert complaints(tmp_path, upgrade, phase) == []


def test_a_contract_may_take_away_and_nothing_else(tmp_path: Path) -> None:
    [told] = complaints(tmp_path, f"{INDEX}\n{DROP}", "contract")
    assert "require-concurrent-index-creation: CREATE INDEX ix_things_level" in told


def test_a_revision_is_excused_by_its_name_and_only_from_that_rule(tmp_path: Path) -> None:
    [told] = complaints(tmp_path, f"{INDEX}\n{DROP}", excused=REASON)
    assert "ban-drop-column" in told


@pytest.mark.parametrize(
    ("excused", "expected"),
    [
        (REASON, "0002_more.py does not need require-concurrent-index-creation any more"),
        (REASON.replace("more", "gone"), "no revision is called gone"),
    ],
)
def test_an_excuse_that_nothing_needs_is_refused(tmp_path: Path, excused: str, expected: str) -> None:
    [told] = complaints(tmp_path, CONCURRENT, excused=excused)
    assert told.endswith(expected)


def test_there_is_nothing_to_say_of_the_machinerys_own() -> None:
    assert list(squawk.complaints(OWN)) == []


def test_a_linter_that_fails_is_not_taken_for_one_that_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "POSTGRESQL", "no version")
    with pytest.raises(RuntimeError, match="squawk ended with 2"):
        list(squawk.squawked("SELECT 1"))
