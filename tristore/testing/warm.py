"""App processes that are forked from one which has imported the app already: importing takes two seconds of processor
time, and the fault tests start a hundred."""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_forkserver = multiprocessing.get_context("forkserver")


def preload(*modules: str) -> None:
    """What processes that are forked from now on have imported. It has no effect once the first one has started."""
    _forkserver.set_forkserver_preload([*modules, "uvicorn"])


class WarmProcess:
    """Runs `python -m module arguments` there. It has what these tests need of asyncio.subprocess.Process."""

    def __init__(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], log: Path, output: Path | None = None
    ) -> None:
        """`log` gets what it writes to stderr, and `output` to stdout, where it is given."""
        self._process = _forkserver.Process(target=_run, args=(module, arguments, cwd, dict(env), log, output))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(0.02)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    module: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], log: Path, output: Path | None
) -> None:
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]  # it is nobody's worker
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)  # noqa: SIM115 - the workers of a server inherit it by its number
    for file, number in ((output, 1), (log, 2)):
        if file:
            os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
