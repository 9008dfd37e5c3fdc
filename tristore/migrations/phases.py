"""Whether a migration adds something (`expand`) or takes something away (`contract`). Each revision says so in `phase`.

Two releases run side by side during a roll, and after a roll back. So what the last release still uses is taken away in
the next one at the earliest."""

import inspect
import re
import subprocess
from collections.abc import Iterator, Set
from pathlib import Path

from alembic.script import Script

from tristore.migrations.history import History

PHASES = ("expand", "contract")
TAKES_AWAY = re.compile(
    r"\bdrop_(table|column)\b|\brename_table\b|\bnew_column_name\b|\b(DROP|RENAME) (TABLE|COLUMN)\b"
)


def chain(history: History) -> list[Script]:
    """Its revisions, the oldest first."""
    return list(reversed(list(history.scripts().walk_revisions())))


def phase_of(script: Script) -> str:
    """As it declares it, "" where it does not."""
    return str(getattr(script.module, "phase", ""))


def misdeclared(history: History) -> Iterator[str]:
    """What is wrong with the declarations, and the cure."""
    for script in chain(history):
        phase = phase_of(script)
        if phase not in PHASES:
            yield f'{script.revision} must say phase = "expand", or "contract" if it takes something away'
        elif phase == "expand" and TAKES_AWAY.search(inspect.getsource(script.module.upgrade)):
            yield f'{script.revision} takes something away, so it must say phase = "contract"'


def too_early(history: History, released: Set[str]) -> Iterator[str]:
    """Contracts that would come in the same release as what they follow. `released`: the revisions of the last one."""
    expand = ""
    for script in chain(history):
        if script.revision in released:
            continue
        if phase_of(script) == "expand":
            expand = script.revision
        elif expand:
            yield (
                f"{script.revision} is a contract, and comes in the same release as {expand}, an expand. The release "
                f"before still works with what it takes away. Publish {expand} first, then add {script.revision}"
            )


def released_revisions(project: Path, folder: str) -> tuple[str, frozenset[str]]:
    """The tag of the last release up to here, and the revisions that it has in a folder. Both are empty where git knows
    no release."""
    tag = _git(project, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*").strip()
    return tag, revisions_at(project, tag, folder) if tag else frozenset()


def revisions_at(project: Path, commit: str, folder: str) -> frozenset[str]:
    """The revisions that a commit has in a folder."""
    names = _git(project, "ls-tree", "--name-only", commit, f"{folder}/").split()
    return frozenset(Path(name).name.partition("_")[0] for name in names)


def _git(project: Path, *arguments: str) -> str:
    """What it prints, "" where it fails."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout  # noqa: S603 - no shell
