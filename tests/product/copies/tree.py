"""A copy of the tree that tests may change."""

import os
import shutil
import subprocess
from pathlib import Path

from tristore.testing.lab import PROJECT


def copy_tree(copy: Path) -> Path:
    """A clone of the tree as it is, also of what is not committed yet."""
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", folder=PROJECT).splitlines():
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
    (copy / ".venv").symlink_to((PROJECT / ".venv").resolve())
    if (PROJECT / ".mypy_cache").is_dir():  # else checking all types takes a minute
        shutil.copytree(PROJECT / ".mypy_cache", copy / ".mypy_cache")
    git("init", "-q", folder=copy)
    commit("as it was", copy)
    return copy


def commit(message: str, folder: Path) -> None:
    git("add", "-A", folder=folder)
    git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", message, folder=folder)


def git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run it with the virtual environment as it is. Returns the exit status and what was printed."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    asked = command.replace("make ", "make -o .venv/installed ", 1)
    done = subprocess.run(asked, shell=True, cwd=folder, env=outside, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
