"""`make upgrade-test`; docs/upgrading.md tells of it. A roll from another commit to this tree, under the lab's clients.
FROM, SEED, MINUTES, BREAK and PLAN come from the environment. BREAK names a broken variant, PLAN the one that is to be
done rightly: then the old release is this tree as well, and the new one owes what the old one does not know."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from migrations import REVISIONS
from tests.chaos.__main__ import main, minutes_of_run, seed_of_run
from tests.chaos.broken_releases import AS_IT_MUST_BE, VARIANTS
from tests.chaos.plans import rolled
from tests.chaos.roll import Roll
from tristore.migrations.history import OWN
from tristore.migrations.phases import revisions_at, too_early
from tristore.testing.lab import PROJECT

HISTORIES = {"migrations/postgres/versions": REVISIONS, "tristore/migrations/postgres/versions": OWN}
LOCK = "requirements/base.lock"
CURE = "Name the commit that runs now: make upgrade-test FROM=<commit>"
VERSION = "^version = "


def git(project: Path, *arguments: str) -> str:
    """What it prints, "" where it fails."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout.strip()


def old_commit(project: Path, named: str) -> str:
    """The commit of this name; without one, that before the last change of the version. Raises SystemExit with a
    sentence where git knows none."""
    if named:
        if commit := git(project, "rev-parse", "--verify", "--quiet", f"{named}^{{commit}}"):
            return commit
        raise SystemExit(f"git knows no commit {named} here. {CURE}")
    changed = git(project, "log", "-1", "--format=%H", "-G", VERSION, "--", "pyproject.toml")
    before = git(project, "rev-parse", "--verify", "--quiet", f"{changed}^") if changed else ""
    if before and "\nversion = " in git(project, "show", f"{before}:pyproject.toml"):
        return before
    raise SystemExit(f"The history that git has here knows no version before this one. {CURE}")


def contracts_too_early(commit: str) -> list[str]:
    """What this tree takes away although the old release still works with it."""
    return [
        told
        for folder, history in HISTORIES.items()
        for told in too_early(history, revisions_at(PROJECT, commit, folder))
    ]


def announce(commit: str) -> None:
    print(f"From {git(PROJECT, 'log', '-1', '--format=%h %s', commit)}", flush=True)
    if git(PROJECT, "show", f"{commit}:{LOCK}") != (PROJECT / LOCK).read_text().strip():
        print(f"{LOCK} differs: both releases run with the libraries of this one", flush=True)


if __name__ == "__main__":
    variant = os.environ.get("BREAK", "")
    plan = variant or os.environ.get("PLAN", "")
    if plan and plan not in VARIANTS:
        sys.exit(f"BREAK and PLAN must be one of {', '.join(VARIANTS)}")
    if plan:
        roll = Roll("", *(VARIANTS[plan] if variant else AS_IT_MUST_BE))
    else:
        roll = Roll(old_commit(PROJECT, os.environ.get("FROM", "")))
        announce(roll.commit)
        if wrong := contracts_too_early(roll.commit):
            sys.exit("\n".join(wrong))
    seed, minutes = seed_of_run(), minutes_of_run()
    sys.exit(not asyncio.run(main(seed, minutes, variant, rolled(minutes, roll), "upgrade")))
