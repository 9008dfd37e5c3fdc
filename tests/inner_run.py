"""Runs of pytest inside a test, for what the test's own run cannot show: how a run fails, and how it is killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

from tristore.testing.lab import PROJECT


async def start_pytest(tests: str, folder: Path, *options: str) -> Process:
    """Runs a file of that text, with the fixtures of conftest.py. All that the run writes is in the folder."""
    (folder / "test_inner.py").write_text(tests)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    program = (sys.executable, "-m", "pytest", "-c", str(PROJECT / "pyproject.toml"), "-p", "tests.conftest")
    # A shell's `nohup ... &` ignores interrupts, and so would all that is started here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return await asyncio.create_subprocess_exec(
            *(*program, "-p", "no:cacheprovider", *options, str(folder / "test_inner.py")),
            cwd=PROJECT,
            env=env | {"TMPDIR": str(folder)},
            stdout=PIPE,
            stderr=STDOUT,
        )
    finally:
        signal.signal(signal.SIGINT, before)
