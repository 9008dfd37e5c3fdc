"""Processes of servers. They outlive the process that started them, and are found again by their data folder."""

import errno
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tristore.embedded.accounts import Account, CannotRun

LOOPBACK = "127.0.0.1"
LOCK_SECONDS = 90.0
STOP_SECONDS = 10.0
LOG_LIMIT = 5_000_000
"""Bytes. A server whose log is longer begins a new one when it starts."""


@dataclass(frozen=True)
class PidFile:
    """What is known of a server that was started. It stands in a file beside the server's data."""

    pid: int
    created: float
    """When the process started, as psutil tells it."""
    port: int
    binary: str
    version: str

    @classmethod
    def read(cls, path: Path) -> "PidFile | None":
        """None when there is no such file, or it cannot be read."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_text()))
        return None

    def write(self, path: Path) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)

    def process(self, data: Path) -> psutil.Process | None:
        """The process if it still runs, else None. The system reuses pids, so start time and data folder must match."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            # Two seconds are allowed: psutil reckons start times from the wall clock, which may be corrected.
            if abs(process.create_time() - self.created) < 2 and serves(process, data) and not gone(process):
                return process
        return None


def spawn(command: Sequence[str], data: Path, log: Path, env: Mapping[str, str], account: Account) -> psutil.Process:
    """Start a server in a session of its own, so that Ctrl-C does not reach it. It works in its data folder."""
    uid, gid, groups = account.ids
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - as above
            [*account.prefix, *command], cwd=data, env=env, user=uid, group=gid, extra_groups=groups,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    child.returncode = 0  # it may outlive us, and `gone` reaps it: Popen need not warn
    return psutil.Process(child.pid)


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended. Reaps our children. If our pid is 1, as in a container, all orphans are children."""
    with suppress(psutil.NoSuchProcess):
        # Once its first thread has ended, a process is a zombie. Its other threads may still hold the port.
        if process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1):
            return False
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return True


def serves(process: psutil.Process, data: Path) -> bool:
    """Whether its command line names this data folder."""
    with suppress(psutil.Error):
        return str(data) in process.cmdline()
    return False


def servers_on(data: Path, names: Collection[str]) -> list[psutil.Process]:
    """All processes of one of these names that work in the folder. The pid file does not know them all. Its writer may
    have died first, the folder may have been deleted, and a killed postmaster leaves children."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() in names and _works_in(process, data) and not gone(process):
                found.append(process)
    return found


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return process.cwd() == str(data)
    except psutil.AccessDenied:  # it is another user's, and root in a container may not look
        return serves(process, data)


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and all below it. Empty when it has ended."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def end(processes: Sequence[psutil.Process], with_signal: int, seconds: float = STOP_SECONDS) -> None:
    """Ask processes to end, stopped ones (SIGSTOP) too. Kill those that still run after so many seconds."""
    everyone = [member for process in processes for member in family(process)]
    signal_all(everyone, signal.SIGCONT)
    signal_all(processes, with_signal)
    if not _wait_gone(everyone, seconds):
        signal_all(everyone, signal.SIGKILL)
        _wait_gone(everyone, seconds)


def signal_all(processes: Sequence[psutil.Process], number: int) -> None:
    """Send a signal to those that have not ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait_gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (ended := all(gone(process) for process in processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return ended


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process, and one thread of it, into the block at a time. When a process dies, the kernel frees its lock.
    Raises CannotRun when others hold the lock for too long."""
    deadline = time.monotonic() + LOCK_SECONDS
    with path.open("w") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise CannotRun(f"another process has been starting or stopping it for {LOCK_SECONDS:.0f} s")
            time.sleep(0.02)
        yield


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there. Raises OSError for an address that is not ours."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port(preferred: int | None) -> int:
    """The preferred port, or another one that is free. It is below the ephemeral ports: no outgoing connection takes it
    while the server is down. A killed server may hold its port a moment longer than its main thread lives."""
    deadline = time.monotonic() + 2
    while preferred and not is_free(preferred) and time.monotonic() < deadline:
        time.sleep(0.1)
    candidates = [random.randrange(20_000, 30_000) for _ in range(100)]
    return next(port for port in [preferred or candidates[0], *candidates] if is_free(port))


def tail(log: Path, start: int) -> str:
    """The last five lines that were logged after the position `start`. If some tell of failures, only those."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
        # mongod marks them, and goes on to log other things.
        failures = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line]
        return "\n".join(line[:400] for line in (failures or lines)[-5:])
    return ""
