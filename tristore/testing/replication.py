"""A primary of PostgreSQL with a standby, and what a team's failover manager does with them: promote, rejoin."""

import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from anyio import to_thread

from tristore.embedded.accounts import Account, CannotRun, choose_account, run
from tristore.embedded.kinds import Binary
from tristore.embedded.passwords import APP_ROLE, passwords_of
from tristore.embedded.postgresql import HBA, SUPERUSER, PostgreSQL
from tristore.embedded.process import LOOPBACK, end, family, free_port, signal_all, spawn
from tristore.testing.lab import until

NAME = "tristore"
PATIENCE = 60
REPLICATION = "host replication all all scram-sha-256\n"


@dataclass
class Node:
    data: Path
    kind: PostgreSQL = field(default_factory=lambda: PostgreSQL(NAME))
    port: int = field(default_factory=lambda: free_port(None))
    process: psutil.Process | None = None

    @property
    def log(self) -> Path:
        return self.data.with_name("server.log")

    def initialise(self) -> None:
        """Make an empty primary."""
        self.data.parent.mkdir(parents=True)
        binary = self._binary()
        self.kind.prepare(binary, self.data, self.log)
        (self.data / "pg_hba.conf").write_text(HBA + REPLICATION)

    def copy(self, primary: "Node") -> None:
        """Become a standby of it: throw away what is here. Raises CannotRun."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        shutil.copy(primary.data.with_name("passwords.json"), self.data.parent)
        binary = self._binary()
        account = self._account(binary)
        account.take_over(self.data)
        address = ["--host", LOOPBACK, "--port", str(primary.port), "--username", SUPERUSER]
        program = str(binary.path.resolve().with_name("pg_basebackup"))
        command = [program, *address, "--pgdata", str(self.data), "--write-recovery-conf", "--checkpoint=fast"]
        password = {"PGPASSWORD": passwords_of(self.data).administrator}
        done = run(command, account=account, env={**binary.env, **password})
        if done.returncode:
            raise CannotRun(done.stdout)

    def start(self) -> None:
        binary = self._binary()
        command = self.kind.command(binary, self.data, self.port)
        self.process = spawn(command, self.data, self.log, binary.env, self._account(binary))

    def kill(self) -> None:
        if self.process:
            end(family(self.process), signal.SIGKILL)
            self.process = None
            (self.data / "postmaster.pid").unlink(missing_ok=True)  # another process may get its number

    def signal(self, number: signal.Signals) -> None:
        """To the server and to all its children."""
        if self.process:
            signal_all(family(self.process), number)

    async def says(self, statement: str) -> Any:
        """As the administrator. Raises what asyncpg raises."""
        dsn = self.kind.administrator_dsn(self.port, passwords_of(self.data)).replace("+asyncpg", "")
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return await connection.fetchval(statement, timeout=30)
        finally:
            connection.terminate()

    async def answers(self, statement: str = "SELECT true") -> bool:
        """Whether it says that this is true."""
        try:
            return bool(await self.says(statement))
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False

    def _binary(self) -> Binary:
        return self.kind.choose(self.kind.installed(), self.data)

    def _account(self, binary: Binary) -> Account:
        return choose_account(binary.path, binary.env, self.data, refuses_root=True)


@dataclass
class Replication:
    primary: Node
    standby: Node
    synchronous: bool

    def dsn(self, *ports: int) -> str:
        """For the app: whichever of the hosts takes writes. `ports` are those of proxies, if there are any."""
        password = passwords_of(self.primary.data).app
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in ports or (self.primary.port, self.standby.port))
        return f"postgresql://{APP_ROLE}:{password}@{hosts}/{NAME}?target_session_attrs=read-write"

    async def begin(self) -> None:
        await to_thread.run_sync(self.primary.initialise)
        await to_thread.run_sync(self.primary.start)
        await until(self.primary.answers, PATIENCE)
        await self.rejoin()

    async def rejoin(self) -> None:
        """The standby, with whatever it had, follows the primary anew."""
        await to_thread.run_sync(self.standby.copy, self.primary)
        await to_thread.run_sync(self.standby.start)
        # Who waits for a standby that has not caught up yet refuses all writes meanwhile.
        caught_up = "SELECT bool_or(state = 'streaming') FROM pg_stat_replication"
        await until(lambda: self.primary.answers(caught_up), PATIENCE)
        if self.synchronous:
            await self._wait_for("*")
            state = "SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication"
            await until(lambda: self.primary.answers(state), PATIENCE)

    async def promote(self) -> None:
        """The standby becomes the primary. Nobody waits for the one that has gone."""
        await until(self.standby.answers, PATIENCE)
        self.primary, self.standby = self.standby, self.primary
        await self._wait_for("")
        await self.primary.says("SELECT pg_promote()")

    async def _wait_for(self, names: str) -> None:
        await self.primary.says(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self.primary.says("SELECT pg_reload_conf()")


@asynccontextmanager
async def replication_in(folder: Path, *, synchronous: bool = True) -> AsyncIterator[Replication]:
    """Of two servers with their data in the folder. Whoever made the folder ends them: see guarded.py."""
    first, second = (Node(folder / f"postgresql-{number}" / "data") for number in range(2))
    replication = Replication(first, second, synchronous)
    try:
        await replication.begin()
        yield replication
    finally:
        for node in (first, second):
            await to_thread.run_sync(node.kill)
