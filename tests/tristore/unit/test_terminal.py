"""Commands in a terminal, and in a pipe."""

import click
import pytest
from click.testing import CliRunner

from tristore.ops.commands import LaterGroup
from tristore.ops.terminal import Group, Progress, coloured, trouble


@click.group(cls=Group)
def cli() -> None:
    """All of it."""


@cli.command()
@click.option("--fast", is_flag=True, help="In a hurry.")
def go(fast: bool) -> None:
    """Set out."""
    click.echo(coloured("redis  embedded running  127.0.0.1:1"))
    click.echo(trouble("It rains."))


def test_help_and_states_are_coloured_in_a_terminal_alone() -> None:
    for arguments in (["--help"], ["go", "--help"], ["go"]):
        in_terminal = CliRunner().invoke(cli, arguments, color=True).output
        in_pipe = CliRunner().invoke(cli, arguments).output
        assert "\x1b[" in in_terminal
        assert click.unstyle(in_terminal) == in_pipe
        assert "\x1b" not in in_pipe


def test_colours_move_no_column() -> None:
    plain = CliRunner().invoke(cli, ["go", "--help"]).output
    assert "  --fast  In a hurry.\n  --help  Show this message and exit.\n" in plain


def test_a_group_is_imported_when_it_is_asked_for() -> None:
    imported = []

    def load() -> click.Group:
        imported.append(1)
        group = Group("later")
        group.add_command(go)
        return group

    outer = Group("outer")
    outer.add_command(LaterGroup("later", "Comes later.", load))
    assert "later  Comes later." in CliRunner().invoke(outer, ["--help"]).output
    assert not imported
    assert "go  Set out." in CliRunner().invoke(outer, ["later", "--help"]).output
    assert "Usage: outer later go [OPTIONS]" in CliRunner().invoke(outer, ["later", "go", "--help"]).output
    assert CliRunner().invoke(outer, ["later", "go"]).exit_code == 0


def test_progress_is_told_now_and_then_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    tell = Progress()
    for number in range(100_000):
        tell(f"{number} done")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("0 done\n")
    assert told.err.count("\n") < 1000
