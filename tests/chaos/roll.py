"""A roll: two releases side by side on the same stores, pod by pod forward, back, and forward again."""

import asyncio
import io
import random
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config import Settings
from tests.chaos.schedule import APPS, Card, Fault
from tristore.testing.lab import PROJECT
from tristore.testing.stores import environment

ReleaseName = Literal["old", "new"]
SETTINGS = {"DRAIN_SECONDS": "0.5"}
MIXES = ("old old", "old new", "new old", "new new")
"""What runs side by side: the release of each app."""
BEFORE = 0.25
"""Of a step's time: what passes under load before it is taken."""


@dataclass(frozen=True)
class Release:
    name: ReleaseName
    tree: Path
    folder: Path
    """Where its commands work: one that has no .env."""
    variant: str = ""
    """The broken variant that its apps are."""

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.tree), "BREAK": self.variant}

    async def migrate(self, settings: Settings) -> None:
        """As an operator does. Raises RuntimeError with what the command says."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(self.tree / "manage.py"), "migrate"),
            cwd=self.folder,
            env=environment(settings, **self.environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the migrations of the {self.name} release fail: {said.decode()}")


@dataclass(frozen=True)
class Roll:
    commit: str = ""
    """Of the old release. Empty: it is this tree, as the new one."""
    old_variant: str = ""
    new_variant: str = ""

    def laid_out(self, folder: Path) -> dict[ReleaseName, Release]:
        """The releases, the old one's tree in the folder."""
        old = _extracted(self.commit, folder / "from") if self.commit else PROJECT
        return {
            "old": Release("old", old, folder, self.old_variant),
            "new": Release("new", PROJECT, folder, self.new_variant),
        }


def _extracted(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit], cwd=PROJECT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def rolls(seed: int, seconds: float) -> list[list[Fault]]:
    """Rounds of steps, of so many seconds each. At the end of a round an app of each release runs, at the end of the
    last one only new ones: what they alone know waits while only old ones run, so nothing is judged then."""
    first, second = random.Random(seed).sample(APPS, 2)
    rounds: list[list[Card]] = [
        [("migrate", "postgresql"), ("roll forward", first)],
        [("roll forward", second), ("roll back", first)],
        [("roll back", second), ("roll forward", first), ("roll forward", second)],
    ]
    return [
        [Fault((place + BEFORE) * seconds, 0, kind, target, 0) for place, (kind, target) in enumerate(steps)]
        for steps in rounds
    ]
