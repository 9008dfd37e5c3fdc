"""Whatever ends a run of the tests, nothing of it is left: no server, no app, no folder."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.inner_run import start_pytest
from tristore.testing.guarded import at_work_in
from tristore.testing.lab import LONG, until

NEVER_ENDS = """
import asyncio, pathlib, pytest

@pytest.mark.parametrize("number", range(2))
async def test_waits(servers, lab, number):
    async with lab.without("postgresql", "stopped"), lab.app():
        pathlib.Path(__file__).with_name(f"ready-{number}").touch()
        await asyncio.Event().wait()  # signal.pause() would sleep through an interrupt that comes just before it
"""


async def until_nothing_is_left(folder: Path) -> None:
    async def nothing() -> bool:
        return not at_work_in(folder) and not found(folder, "tristore-tests-*")

    await until(nothing, 60)


def found(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its name, for sockets of servers below it: a path of one has at most 107 bytes."""
    return tmp_path_factory.mktemp("run")


WAYS = [(2, signal.SIGKILL), (0, signal.SIGKILL), (0, signal.SIGINT)]


@pytest.mark.parametrize(("workers", "end"), WAYS if LONG else [(1, signal.SIGKILL)])
async def test_of_a_run_that_is_killed_or_interrupted_nothing_is_left(
    short: Path, workers: int, end: signal.Signals
) -> None:
    run = await start_pytest(NEVER_ENDS, short, f"-n{workers}")

    async def ready() -> bool:
        assert run.returncode is None
        return len(found(short, "ready-*")) == max(1, workers)

    await until(ready, 90)
    names = {process.name() for process in at_work_in(short)}
    assert {"postgres", "mongod"} <= names
    assert names & {"redis-server", "valkey-server"}
    run.send_signal(end)
    await asyncio.wait_for(run.communicate(), 60)
    await until_nothing_is_left(short)


async def test_of_a_worker_that_is_killed_nothing_is_left_at_the_end_of_the_run(short: Path) -> None:
    kills_its_worker = "import os\n\ndef test_kills(servers): os.kill(os.getpid(), 9)\n"
    run = await start_pytest(kills_its_worker, short, "-n1")
    printed, _ = await asyncio.wait_for(run.communicate(), 180)
    assert b"crashed" in printed
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    await until_nothing_is_left(short)
