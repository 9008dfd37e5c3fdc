"""A MariaDB of the tests' own, to stop and kill. It runs as an ordinary user, in a folder that is gone at the end."""

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
from anyio import to_thread

from tristore.embedded.accounts import choose_account, run
from tristore.embedded.kinds import environment
from tristore.embedded.process import LOOPBACK, end, free_port, spawn
from tristore.testing.lab import Fault

USERS = """
CREATE USER IF NOT EXISTS 'app'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT SELECT, INSERT, UPDATE, CREATE, INDEX ON `points%`.* TO 'app'@'127.0.0.1';
CREATE USER IF NOT EXISTS 'administrator'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO 'administrator'@'127.0.0.1';
ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}';
"""
"""The server reads it at each start, before it takes connections. The app's user may not write where all may only
read."""
OPTIONS = {
    "bind-address": LOOPBACK,
    "socket": "mariadb.sock",  # in the data folder: the path of a socket must not be longer than 107 bytes
    "skip-name-resolve": "ON",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "performance-schema": "OFF",
}


def program(name: str) -> Path:
    """Raises RuntimeError where it is not installed."""
    if found := shutil.which(name) or shutil.which(name, path="/usr/sbin"):
        return Path(found)
    raise RuntimeError("MariaDB is not installed: apt-get install mariadb-client-core mariadb-server-core")


class MariaDB:
    def __init__(self, folder: Path) -> None:
        self._data = folder / "mariadb" / "data"
        self._data.mkdir(parents=True)
        self._program = program("mariadbd")
        self._account = choose_account(self._program, os.environ, self._data, refuses_root=True)
        self._process: psutil.Process | None = None
        self._first = self._data.with_name("first.sql")
        self.port = free_port(None)
        self.password = secrets.token_hex(16)

    def dsn(self, database: str, *, user: str = "app", port: int | None = None) -> str:
        return f"mysql://{user}:{self.password}@{LOOPBACK}:{port or self.port}/{database}"

    def install(self) -> None:
        """Raises RuntimeError."""
        self._first.write_text(USERS.format(password=self.password))
        self._first.chmod(0o600)
        os.chown(self._first, *self._account.owner)
        options = [f"--datadir={self._data}", "--auth-root-authentication-method=normal", "--skip-test-db", "--force"]
        command = [str(program("mariadb-install-db")), "--no-defaults", *options]
        done = run(command, account=self._account, env=environment())
        if done.returncode:
            raise RuntimeError(f"MariaDB cannot be installed: {done.stdout[-2000:]}")

    def start(self) -> None:
        """And wait until it takes connections. Raises RuntimeError."""
        options = OPTIONS | {"datadir": str(self._data), "port": str(self.port), "init-file": str(self._first)}
        words = [f"--{name}={value}" for name, value in options.items()]
        log = self._data.with_name("mariadb.log")
        command = [str(self._program), "--no-defaults", *words]
        self._process = spawn(command, self._data, log, environment(), self._account)
        deadline = time.monotonic() + 30
        while not self._greets():
            if time.monotonic() > deadline or self._process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(f"MariaDB does not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process:
            end([self._process], signal.SIGTERM)

    @asynccontextmanager
    async def away(self, fault: Fault) -> AsyncIterator[None]:
        """Hang (SIGSTOP) or kill it, and bring it back at the end."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP if fault == "stopped" else signal.SIGKILL)
        try:
            yield
        finally:
            if fault == "stopped":
                self._process.send_signal(signal.SIGCONT)
            else:
                await to_thread.run_sync(self._bring_back)

    def _bring_back(self) -> None:
        assert self._process
        end([self._process], signal.SIGKILL)  # reaps it: its data folder must be free
        self.start()

    def _greets(self) -> bool:
        """Whether it says hello, as the protocol has it: the fifth byte is the protocol's version."""
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1) as connection:
            return connection.recv(5)[4:] == b"\x0a"
        return False
