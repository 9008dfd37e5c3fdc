"""The API's document as a file, and the tools of Node.js and Java that `make test-clients` has installed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tristore.testing.lab import App

BIN = Path(sys.prefix, "bin")
MODULES = Path(sys.prefix, "npm/node_modules")
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a folder of the test's own, which has what npm installed. Returns what it printed."""
    (tmp_path / "node_modules").symlink_to(MODULES)
    path = os.pathsep.join(map(str, (MODULES / ".bin", BIN, os.environ["PATH"])))

    def run(*command: str) -> str:
        environment = os.environ | QUIET | {"PATH": path}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
async def document(app: App, tmp_path: Path) -> Path:
    file = tmp_path / "openapi.json"
    file.write_text((await app.client.get("/openapi.json")).text)
    return file
