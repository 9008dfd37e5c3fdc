"""Copies of the tree, which tests may change, and documents that are followed in them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.product.documents import STEP
from tristore.testing.lab import PROJECT

IN_COPIES = {"WORKERS": "2"}
"""What make is told: these runs have the machine not for themselves."""


def copy_tree(copy: Path, tag: str = "") -> Path:
    """A clone of the tree as it is, with what is not committed yet. With a tag: as it was there, with its history."""
    if tag:
        git("clone", "-q", "--branch", tag, str(PROJECT), str(copy), folder=PROJECT)
    else:
        put_tree(copy)
        git("init", "-q", folder=copy)
    for setting in ("user.name=a", "user.email=a@example.com", "advice.detachedHead=false"):
        git("config", *setting.split("="), folder=copy)
    (copy / ".venv").symlink_to((PROJECT / ".venv").resolve())
    if (PROJECT / ".mypy_cache").is_dir():  # else checking all types takes a minute
        shutil.copytree(PROJECT / ".mypy_cache", copy / ".mypy_cache")
    commit("as it was", copy)
    return copy


def put_tree(folder: Path) -> None:
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", folder=PROJECT).splitlines():
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)


def next_copy(copy: Path, name: str) -> Path:
    return shutil.copytree(copy, copy.with_name(name), symlinks=True)


def commit(message: str, folder: Path) -> None:
    git("add", "-A", folder=folder)
    git("commit", "-q", "--allow-empty", "-m", message, folder=folder)


def git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def run(command: str, folder: Path, **more: str) -> tuple[int, str]:
    """Run it with the virtual environment as it is. Returns the exit status and what was printed."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    asked = command.replace("make ", "make -o .venv/installed ", 1)
    environment = outside | IN_COPIES | more
    done = subprocess.run(asked, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def steps(document: Path, section: str = "") -> Iterator[re.Match[str]]:
    """What it says to write, to change and to run, in its order; of one section only, if it is named."""
    text = document.read_text()
    if section:
        assert f"\n## {section}\n" in text, f"{document.name} has no section {section}"
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return STEP.finditer(text)


def commands(step: re.Match[str]) -> list[str]:
    return re.findall(r"^\$ (.*)", step["block"], re.MULTILINE) if step["kind"] == "console" else []


def follow(copy: Path, document: str, section: str = "", *, dots: str = "...", **more: str) -> None:
    """Do what it says. Where a command has three dots, the reader puts a name."""
    file = copy
    for step in steps(copy / document, section):
        if step["path"]:
            file = copy / step["path"]
        elif step["kind"] == "python":
            file.write_text(step["block"])
        elif step["kind"] == "diff":
            change(file, step["block"], document)
        for command in commands(step):
            code, printed = run(command.replace("...", dots), copy, **more)
            assert code == 0, f"{command}\n{printed}"


def change(file: Path, difference: str, document: str) -> None:
    lines = difference.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    text = file.read_text()
    assert text.count(before) == 1, f"{document} changes {file.name} at lines that are not there once:\n{before}"
    file.write_text(text.replace(before, "".join(line[1:] for line in lines if not line.startswith("-"))))
