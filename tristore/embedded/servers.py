"""Real PostgreSQL, Redis and MongoDB servers on loopback, for `make run` and the tests. The app never imports this."""

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

from tristore.embedded.kinds import Kind, MongoDB, PostgreSQL, Redis
from tristore.embedded.process import (
    LOG_LIMIT,
    CannotRun,
    Record,
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
START_PATIENCE = 60.0
ADOPT_PATIENCE = 5.0  # a running server that has not answered by then is stopped and started again


class EmbeddedError(Exception):
    """A store's server cannot be started: which one, why, what to do instead, and the end of its log."""

    def __init__(self, store: Store, cause: object, log: str = "") -> None:
        self.store = store
        super().__init__(
            f"The embedded {store} cannot be started: {cause}. Instead run `docker compose up -d`, or set "
            f"{DSN_FIELDS[store].upper()} to a server of yours." + (f"\nThe end of its log:\n{log}" if log else "")
        )


@dataclass(frozen=True)
class Server:
    """A running server. SIGSTOP of `pid` stops Redis and MongoDB; PostgreSQL answers open connections from child
    processes: stop all of `EmbeddedServers.pids`."""

    store: Store
    dsn: str = field(repr=False)
    pid: int
    port: int
    data: Path
    version: str


class EmbeddedServers:
    """The servers whose data is under `root/<store>/`. They outlive this process until `stop`."""

    def __init__(
        self, root: Path, *, name: str = "tristore", installed: Callable[[Store], Iterable[Path]] | None = None
    ) -> None:
        """`name` is that of PostgreSQL's superuser and database. Data that exists must have been made with it.
        `installed` gives the programs to choose from, best first (default: on PATH, then in the wheels)."""
        self._root = root.resolve()
        self._kinds: dict[Store, Kind] = {"postgresql": PostgreSQL(name), "redis": Redis(), "mongodb": MongoDB()}
        self._installed = installed or self.installed

    def installed(self, store: Store) -> Iterable[Path]:
        """The programs on PATH and in the wheels, best first."""
        return self._kinds[store].installed()

    def start(self, store: Store) -> Server:
        """Starts the server, or adopts the one that runs; returns when it answers. Raises EmbeddedError."""
        return self._start(store, threading.Event())[0]

    def start_all(self, stores: Iterable[Store] = STORES) -> dict[Store, Server]:
        """Starts them at the same time. If one cannot start, or this is interrupted, none that it started stays."""
        cancelled = threading.Event()
        with ThreadPoolExecutor(len(STORES)) as pool:
            starts = {store: pool.submit(self._start, store, cancelled) for store in stores}
            try:
                done, _ = wait(starts.values(), return_when=FIRST_EXCEPTION)
                for start in done:
                    start.result()  # raises what failed, while others may still be starting
                return {store: start.result()[0] for store, start in starts.items()}
            except BaseException:
                cancelled.set()
                for store, start in starts.items():
                    if start.exception() is None and start.result()[1]:
                        self.stop(store)
                raise

    def stop(self, store: Store) -> bool:
        """Stops the server cleanly, or kills it if it takes too long. False if it was not running."""
        if not self._folder(store).exists():
            return False
        with locked(self._folder(store) / "lock"):
            return self._clear(store)

    def status(self, store: Store) -> Server | None:
        """The running server, which may still be starting or hung."""
        record = self._record(store)
        return self._server(store, record) if record and record.process(self._data(store)) else None

    def pids(self, store: Store) -> list[int]:
        """The server's process and, for PostgreSQL, its children: what a test stops (SIGSTOP) to hang the store."""
        record = self._record(store)
        process = record.process(self._data(store)) if record else None
        return [member.pid for member in family(process)] if process else []

    def _folder(self, store: Store) -> Path:
        return self._root / store

    def _data(self, store: Store) -> Path:
        return self._folder(store) / "data"

    def _record(self, store: Store) -> Record | None:
        return Record.read(self._folder(store) / "server.json")

    def _server(self, store: Store, record: Record) -> Server:
        dsn = self._kinds[store].dsn.format(port=record.port)
        return Server(store, dsn, record.pid, record.port, self._data(store), record.version)

    def _start(self, store: Store, cancelled: threading.Event) -> tuple[Server, bool]:
        """The server, and whether it had to be started."""
        log, begin = self._folder(store) / "server.log", 0
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                if file.tell() > LOG_LIMIT:
                    file.truncate(0)
                begin = log.stat().st_size
            with locked(self._folder(store) / "lock"):
                if server := self._adopt(store):
                    return server, False
                self._clear(store)
                return self._launch(store, log, cancelled), True
        except (CannotRun, OSError, SubprocessError, psutil.Error) as error:
            raise EmbeddedError(store, error, tail(log, begin)) from error

    def _adopt(self, store: Store) -> Server | None:
        record = self._record(store)
        process = record.process(self._data(store)) if record else None
        if record is None or process is None:
            return None
        signal_all(family(process), signal.SIGCONT)
        with suppress(CannotRun):
            self._wait_ready(store, process, record.port, ADOPT_PATIENCE, cancelled=threading.Event())
            return self._server(store, record)
        return None

    def _clear(self, store: Store) -> bool:
        """Ends all that still runs on the store's folder; True if a server was among it."""
        kind, data = self._kinds[store], self._data(store)
        found = servers_on(data, kind.program)
        servers = [process for process in found if serves(process, data)]
        end(servers, kind.stop_signal)
        end(found, signal.SIGKILL)  # what a killed postmaster left: there is nobody to tell it to stop
        return bool(servers)

    def _launch(self, store: Store, log: Path, cancelled: threading.Event) -> Server:
        kind, data, record = self._kinds[store], self._data(store), self._record(store)
        remembered = [Path(record.binary)] if record and Path(record.binary).exists() else []
        binary = kind.choose([*remembered, *self._installed(store)], data)
        account = kind.prepare(binary, data, log)
        port = free_port(record.port if record else None)
        process = spawn(kind.command(binary, data, port), data, log, binary.env, account)
        try:
            record = Record(process.pid, process.create_time(), port, str(binary.path), binary.version)
            record.write(self._folder(store) / "server.json")
            self._wait_ready(store, process, port, START_PATIENCE, cancelled)
        except BaseException:
            end([process], kind.stop_signal)
            raise
        return self._server(store, record)

    def _wait_ready(
        self, store: Store, process: psutil.Process, port: int, patience: float, cancelled: threading.Event
    ) -> None:
        deadline = monotonic() + patience
        while monotonic() < deadline:
            if cancelled.is_set():
                raise CannotRun("another store failed, or the start was interrupted")
            if gone(process):
                raise CannotRun("it ended while it was starting")
            with suppress(OSError):
                if self._kinds[store].ready(port, self._data(store)):
                    return
            sleep(0.01)
        raise CannotRun(f"it did not answer within {patience:.0f} s")
