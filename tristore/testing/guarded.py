"""A folder that cleans up after its users: no server and no app that works in it outlives them, however they end.

Each user holds a shared lock on a file in the folder. The kernel releases the lock when the user dies, even by SIGKILL.
The guardian is this module, run as a program. It waits until nobody holds the lock. Then it ends all processes that
work in the folder, and removes the folder.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

PATIENCE_SECONDS = 5
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder in it for this user alone
"""Where Linux keeps files in memory. There the servers of a run of all tests take a tenth less time than on a disk."""
ROOM_BYTES = 8 * 2**30


@contextmanager
def guarded_folder(prefix: str, within: Path | None = None) -> Iterator[Path]:
    """A new folder. When this ends, or its process dies, and no other process holds the folder, all is cleaned up."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within)).resolve()
    (folder / "held").touch()
    held = hold(folder)
    guardian = subprocess.Popen(  # noqa: S603 - the program is this module
        [sys.executable, "-P", __file__, str(folder)], start_new_session=True, stdin=subprocess.DEVNULL
    )
    try:
        yield folder
    finally:
        held.close()
        guardian.wait()


def memory() -> Path | None:
    """Where there is room for all servers of a run, and nobody has chosen a place by TMPDIR."""
    if "TMPDIR" not in os.environ and MEMORY.is_mount() and psutil.virtual_memory().available > 2 * ROOM_BYTES:
        return MEMORY if shutil.disk_usage(MEMORY).free > ROOM_BYTES else None
    return None


def hold(folder: Path) -> IO[bytes]:
    """Makes this process a user of the folder, until the file is closed. Raises FileNotFoundError after its end."""
    file = (folder / "held").open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def clean_up_when_free(folder: Path) -> None:
    with (folder / "held").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    started = time.monotonic()
    while found := at_work_in(folder):
        for process in found:
            _end(process, gently=time.monotonic() - started < PATIENCE_SECONDS)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def at_work_in(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory is the folder or below it. Those that have ended are not among them."""
    return [process for process in psutil.process_iter() if _works_in(process, folder)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        try:
            return Path(process.cwd()).is_relative_to(folder)
        except psutil.AccessDenied:  # another user's: its command names the folder
            return any(str(folder) in word for word in process.cmdline())
    return False


def _end(process: psutil.Process, *, gently: bool) -> None:
    with suppress(psutil.Error):
        # PostgreSQL's "immediate" shutdown gives its shared memory back, which SIGKILL would leave.
        process.send_signal(signal.SIGQUIT if gently and process.name() == "postgres" else signal.SIGKILL)
        process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    clean_up_when_free(Path(sys.argv[1]))
