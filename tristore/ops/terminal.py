"""How commands speak to a person: help and states are coloured where a terminal is, and plain in a pipe."""

import time
from collections.abc import Iterable

import click

COLOURS = {"running": "green", "connected": "green", "stopped": "yellow", "stuck": "yellow", "dead": "red"}
"""Of the words that tell a state."""


class _Formatter(click.HelpFormatter):
    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, click.style("Usage: ", bold=True) if prefix is None else prefix)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(click.style(name, fg="cyan"), told) for name, told in rows], col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


class Command(click.Command):
    context_class = _Context


class Group(click.Group):
    """A group whose commands, and whose groups, are of these classes too."""

    context_class = _Context
    command_class = Command
    group_class = type


def coloured(text: str) -> str:
    """The text with its states in colour. `click.echo` takes colours out again where no terminal is."""
    for word, colour in COLOURS.items():
        text = text.replace(f" {word} ", f" {click.style(word, fg=colour)} ")
    return text


def trouble(message: str) -> str:
    return click.style(message, fg="red")


class Progress:
    """Takes lines that tell how far something is, and shows at most one a second, on standard error."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() >= self._next:
            click.echo(line, err=True)
            self._next = time.monotonic() + 1
