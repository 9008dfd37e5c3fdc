"""Lints what each migration sends to PostgreSQL, with squawk: what holds up the service that runs, or breaks it. `make
check` does it.

Where a revision may do what a rule forbids, `squawk.toml` beside the revisions' folder says so: under the revision's
name without its number, the rule and why."""

import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import click
from alembic import command
from alembic.script import Script

from tristore.migrations.history import OWN, History
from tristore.migrations.phases import chain, phase_of

SQUAWK = Path(sys.executable).with_name("squawk")
POSTGRESQL = "18"
"""The version that tests run on."""
LEFT_OUT = (
    "prefer-text-field",  # a column is as long as its model says; PostgreSQL makes it longer without rewriting it
    "prefer-bigint-over-int",  # ids are UUIDs: what is an integer counts, and stays small
    "require-lock-timeout",  # whoever migrates sets it for the whole connection: see patience.py
    "require-statement-timeout",  # a long statement that holds up nobody may take as long as it takes
)
OF_A_CONTRACT = ("ban-drop-", "renaming-")
"""How the rules begin that a revision with `phase = "contract"` may break: no release uses that by then. See
phases.py."""


def complaints(history: History) -> Iterator[str]:
    """What is wrong with its revisions, and what squawk advises."""
    file = Path(history.scripts().dir) / "squawk.toml"
    excused = tomllib.loads(file.read_text()) if file.exists() else {}
    for script in chain(history):
        found = list(squawked(sql_of(history, script)))
        mine = excused.pop(Path(script.path).stem.partition("_")[2], {})
        allowed = (*mine, *(OF_A_CONTRACT if phase_of(script) == "contract" else ()))
        for rule, statement, advice in found:
            if not rule.startswith(allowed):
                yield f"{Path(script.path).name}: {rule}: {statement}\n    {advice}"
        for rule in sorted(mine.keys() - {rule for rule, _, _ in found}):
            yield f"{file}: {Path(script.path).name} does not need {rule} any more"
    for name in excused:
        yield f"{file}: no revision is called {name}"


def sql_of(history: History, script: Script) -> str:
    """What `alembic upgrade --sql` prints for this revision."""
    config = history.config()
    config.output_buffer = printed = io.StringIO()
    with redirect_stderr(io.StringIO()):
        command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    return printed.getvalue()


def squawked(sql: str) -> Iterator[tuple[str, str, str]]:
    """For each finding the rule, the line that it begins with, and the advice. Raises RuntimeError where squawk does
    not answer."""
    options = ["--pg-version", POSTGRESQL, "--exclude", ",".join(LEFT_OUT), "--reporter", "json"]
    run = subprocess.run([SQUAWK, *options], input=sql, capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode not in (0, 1):
        raise RuntimeError(f"squawk ended with {run.returncode}: {run.stderr.strip()}")
    told: list[Mapping[str, Any]] = json.loads(run.stdout)
    for one in told:
        advice = f"{one['message']} {one['help'] or ''}".strip()
        yield one["rule_name"], sql.splitlines()[one["line"]].strip(), advice


def main() -> int:
    """Print a line for each complaint about the machinery's revisions and the product's. Returns 1 if there is one."""
    wrong = [line for history in (OWN, History(Path("pyproject.toml"))) for line in complaints(history)]
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        click.echo("Mend the revision, or say in squawk.toml why it may do this: see docs/migrations.md", err=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
