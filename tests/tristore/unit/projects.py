"""Small projects under git, for the commands that change a clone."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def make_project(folder: Path, files: Mapping[str, str]) -> Path:
    write(folder, files)
    git(folder, "init", "-q")
    commit(folder)
    return folder


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True, text=True)
    return done.stdout


def commit(project: Path) -> str:
    """Of all there is. Returns the commit."""
    git(project, "add", "-A")
    git(project, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "as it is")
    return git(project, "rev-parse", "HEAD").strip()
