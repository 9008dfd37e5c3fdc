"""docs/first-hour.md is gone through in a copy of the tree, with the service that it starts. So is docs/first-order.md,
where it is."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.product.copies.tree import copy_tree
from tests.product.documents import commands, is_shown
from tests.product.outside import environment
from tristore.testing.lab import NO_TLS, PROJECT, free_port

pytestmark = pytest.mark.timeout(300)
PAGES = [PROJECT / "docs/first-hour.md", PROJECT / "docs/first-order.md"]
STARTED = "Ctrl-C stops"
MARK = "---next---"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_tree(tmp_path)


@pytest.fixture
def hour(copy: Path) -> Iterator[tuple[str, int]]:
    """What `make run` has printed before its log, and the port. It is stopped as a person stops it."""
    port, printed = free_port(), copy.parent / "printed"
    with printed.open("w") as output:
        command = ["make", "-o", ".venv/installed", "run"]
        running = subprocess.Popen(
            command, cwd=copy, env=environment(PORT=str(port)), stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while STARTED not in printed.read_text() or not answers(port):
            assert running.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.1)
        screen, _, _ = printed.read_text().partition("\n\n20")  # the log begins with a year
        yield screen, port
    finally:
        os.killpg(running.pid, signal.SIGINT)
        running.wait(60)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live", verify=NO_TLS).is_success
    except httpx.TransportError:
        return False


def test_each_command_prints_what_the_document_shows(copy: Path, hour: tuple[str, int]) -> None:
    screen, port = hour
    (first, shown), *others = [part for page in PAGES if page.exists() for part in commands(page)]
    assert first == "make run\n"
    assert is_shown(screen.replace(f":{port}", ":8000"), shown), screen
    script = f"\necho; echo {MARK}\n".join(command for command, _ in others).replace(
        "localhost:8000", f"127.0.0.1:{port}"
    )
    done = subprocess.run(
        ["bash", "-ec", script], cwd=copy, env=environment(PORT=str(port)), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for (command, expected), output in zip(others, done.stdout.split(f"\n{MARK}\n"), strict=True):
        assert is_shown(output, expected), (command, output)
