"""What the commands that change a clone have in common: `make rename`, `make without`, `make upgrade`."""

import subprocess
import sys
from pathlib import Path

import click


class Refused(click.ClickException):
    """What cannot be done, and the cure."""


def git(project: Path, *arguments: str, asked: str | None = None) -> str:
    """What git prints. `asked` is what it reads. Raises Refused with git's own words."""
    command = ["git", *arguments]  # as the developer has it on the PATH
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, input=asked, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def files(project: Path) -> list[str]:
    """Paths of the files that git knows, or would take."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [path for path in listed if path and (project / path).is_file()]


def refuse_changes(project: Path) -> None:
    """Raises Refused where something is not committed."""
    if git(project, "status", "--porcelain"):
        raise Refused("Commit or stash your changes first: then `git diff` shows what this has changed.")


def tidy(project: Path) -> None:
    """Imports that nobody uses any more or that stand in another order, and lines that now fit, or fit no more."""
    for arguments in (("check", "--fix", "--quiet", "."), ("format", "--quiet", ".")):
        subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=project, check=False)  # noqa: S603 - the words are ours
