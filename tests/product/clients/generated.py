"""The Python package that openapi-python-client makes of the API's document."""

import subprocess
import sys
from pathlib import Path

PACKAGE = "chatlingo_client"


def generate(document: str, folder: Path) -> None:
    """Write the package into the folder. Fails when the generator can make nothing of a part of the document."""
    (folder / "openapi.json").write_text(document)
    (folder / "config.yml").write_text("post_hooks: []\n")  # these would be formatters that the machine may not have
    command = ["openapi_python_client", "generate", "--path=openapi.json", "--config=config.yml", "--meta=none"]
    options = [f"--output-path={PACKAGE}", "--fail-on-warning"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *options], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
