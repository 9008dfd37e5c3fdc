"""Real servers of PostgreSQL, Redis and MongoDB on loopback, for `make run` and tests. The app never imports this."""

import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import SubprocessError
from time import monotonic, sleep
from typing import get_args

import psutil

from tristore.embedded.accounts import CannotRun, make_private
from tristore.embedded.kinds import Kind, Redis
from tristore.embedded.mongodb import MongoDB
from tristore.embedded.passwords import passwords_of
from tristore.embedded.postgresql import PostgreSQL
from tristore.embedded.process import (
    LOG_LIMIT,
    PidFile,
    end,
    family,
    free_port,
    gone,
    locked,
    servers_on,
    serves,
    signal_all,
    spawn,
    tail,
)
from tristore.errors import StoreName
from tristore.settings import DSN_FIELDS

Store = StoreName
STORES: tuple[Store, ...] = get_args(Store)
START_SECONDS = 60.0
ADOPT_SECONDS = 5.0
"""A running server that has not answered by then is stopped, and started again."""


class EmbeddedError(Exception):
    """A server cannot be started. Says which one, why, what to do instead, and how its log ends."""

    def __init__(self, store: Store, cause: object, log: str = "") -> None:
        self.store = store
        super().__init__(
            f"The embedded {store} cannot be started: {cause}. Instead run `docker compose up -d`, or set "
            f"{DSN_FIELDS[store].upper()} to a server of yours." + (f"\nThe end of its log:\n{log}" if log else "")
        )


@dataclass(frozen=True)
class Server:
    """A running server. To hang Redis or MongoDB, send SIGSTOP to `pid`. PostgreSQL answers open connections from
    child processes, so send it to all of `EmbeddedServers.pids`."""

    store: Store
    dsn: str = field(repr=False)
    """For the app, with its password."""
    administrator_dsn: str = field(repr=False)
    """With all rights, for tests and for whoever repairs something. Redis has one user only."""
    pid: int
    port: int
    data: Path
    version: str


class EmbeddedServers:
    """The servers whose data is in `root/<store>/`. They run on after this process, until `stop`."""

    def __init__(
        self, root: Path, *, name: str = "tristore", installed: Callable[[Store], Iterable[Path]] | None = None
    ) -> None:
        """`name` is the name of PostgreSQL's database. Data that exists must have been made with it.
        `installed` gives the programs to choose from, the best first. None: those on PATH, then in the wheels."""
        self._root = root.resolve()
        self._kinds: dict[Store, Kind] = {"postgresql": PostgreSQL(name), "redis": Redis(), "mongodb": MongoDB()}
        self._installed = installed or self.installed

    def installed(self, store: Store) -> Iterable[Path]:
        """The programs on PATH and in the wheels, the best first."""
        return self._kinds[store].installed()

    def start(self, store: Store) -> Server:
        """Start the server, or adopt the one that runs. Returns when it answers. Raises EmbeddedError."""
        return self._start(store, threading.Event())[0]

    def start_all(self, stores: Iterable[Store] = STORES) -> dict[Store, Server]:
        """Start them all at once. If one cannot start, or this is interrupted, it stops those that it has started.
        Raises EmbeddedError."""
        cancelled = threading.Event()
        with ThreadPoolExecutor(len(STORES)) as pool:
            starts = {store: pool.submit(self._start, store, cancelled) for store in stores}
            try:
                done, _ = wait(starts.values(), return_when=FIRST_EXCEPTION)
                for start in done:
                    start.result()  # raises the error at once, while others may still be starting
                return {store: start.result()[0] for store, start in starts.items()}
            except BaseException:
                cancelled.set()
                for store, start in starts.items():
                    if start.exception() is None and start.result()[1]:
                        self.stop(store)
                raise

    def stop(self, store: Store) -> bool:
        """Stop the server, and kill it if it takes too long. False if it was not running. Raises CannotRun."""
        if not self._folder(store).exists():
            return False
        with locked(self._folder(store) / "lock"):
            return self._clear(store)

    def status(self, store: Store) -> Server | None:
        """The running server, or None. It may still be starting, or hang."""
        known = self._pid_file(store)
        return self._server(store, known) if known and known.process(self._data(store)) else None

    def pids(self, store: Store) -> list[int]:
        """The server's process and its children, if any. A test sends them SIGSTOP to hang the store."""
        known = self._pid_file(store)
        process = known.process(self._data(store)) if known else None
        return [member.pid for member in family(process)] if process else []

    def _folder(self, store: Store) -> Path:
        return self._root / store

    def _data(self, store: Store) -> Path:
        return self._folder(store) / "data"

    def _pid_file(self, store: Store) -> PidFile | None:
        return PidFile.read(self._folder(store) / "server.json")

    def _server(self, store: Store, known: PidFile) -> Server:
        kind, passwords = self._kinds[store], passwords_of(self._data(store))
        dsns = kind.dsn(known.port, passwords), kind.administrator_dsn(known.port, passwords)
        return Server(store, *dsns, known.pid, known.port, self._data(store), known.version)

    def _start(self, store: Store, cancelled: threading.Event) -> tuple[Server, bool]:
        """The server, and whether it had to be started. Raises EmbeddedError."""
        log, begin = self._folder(store) / "server.log", 0
        try:
            for folder in self._root, log.parent:
                make_private(folder)
            with log.open("a") as file:
                if file.tell() > LOG_LIMIT:
                    file.truncate(0)
                begin = log.stat().st_size
            with locked(self._folder(store) / "lock"):
                if server := self._adopt(store):
                    return server, False
                self._clear(store)
                return self._launch(store, log, cancelled), True
        except (CannotRun, OSError, SubprocessError, psutil.Error, ValueError, TypeError) as error:
            raise EmbeddedError(store, error, tail(log, begin)) from error

    def _adopt(self, store: Store) -> Server | None:
        known = self._pid_file(store)
        process = known.process(self._data(store)) if known else None
        if known is None or process is None:
            return None
        signal_all(family(process), signal.SIGCONT)
        with suppress(CannotRun):
            self._wait_ready(store, process, known.port, ADOPT_SECONDS, cancelled=threading.Event())
            return self._server(store, known)
        return None

    def _clear(self, store: Store) -> bool:
        """End all processes that still work in the store's folder. True if a server was among them."""
        kind, data = self._kinds[store], self._data(store)
        found = servers_on(data, kind.programs)
        servers = [process for process in found if serves(process, data)]
        end(servers, kind.stop_signal)
        end(found, signal.SIGKILL)  # children of a killed postmaster: nobody tells them to stop
        return bool(servers)

    def _launch(self, store: Store, log: Path, cancelled: threading.Event) -> Server:
        kind, data, known = self._kinds[store], self._data(store), self._pid_file(store)
        remembered = [Path(known.binary)] if known and Path(known.binary).exists() else []
        binary = kind.choose([*remembered, *self._installed(store)], data)
        account = kind.prepare(binary, data, log)
        port = free_port(known.port if known else None)
        process = spawn(kind.command(binary, data, port), data, log, binary.env, account)
        try:
            known = PidFile(process.pid, process.create_time(), port, str(binary.path), binary.version)
            known.write(self._folder(store) / "server.json")
            self._wait_ready(store, process, port, START_SECONDS, cancelled)
        except BaseException:
            end([process], kind.stop_signal)
            raise
        return self._server(store, known)

    def _wait_ready(
        self, store: Store, process: psutil.Process, port: int, seconds: float, cancelled: threading.Event
    ) -> None:
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            if cancelled.is_set():
                raise CannotRun("another store failed, or the start was interrupted")
            if gone(process):
                raise CannotRun("it ended while it was starting")
            with suppress(OSError):
                if self._kinds[store].ready(port, self._data(store)):
                    return
            sleep(0.01)
        raise CannotRun(f"it did not answer within {seconds:.0f} s")
