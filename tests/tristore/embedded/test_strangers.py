"""Embedded servers are nobody's but their owner's: what others on the same machine find."""

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tristore.embedded.passwords import APP_ROLE, passwords_of
from tristore.embedded.servers import STORES, EmbeddedServers, Server, Store

NOBODY = 65534


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("strangers")
    for folder in [root, *root.parents][:-1]:  # what is found below is not kept by the folders above
        if folder.owner() == root.owner() and folder.stat().st_mode & stat.S_IXOTH == 0:
            folder.chmod(0o711)
    yield root / "data"
    for store in STORES:
        EmbeddedServers(root / "data").stop(store)


@pytest.fixture(scope="module")
def servers(root: Path) -> dict[Store, Server]:
    return EmbeddedServers(root).start_all()


@pytest.mark.usefixtures("servers")
def test_nobody_else_enters_the_folder(root: Path) -> None:
    assert root.stat().st_mode & (stat.S_IRWXO | stat.S_IRGRP | stat.S_IWGRP) == 0
    for data in root.glob("*/data"):
        assert data.stat().st_mode & (stat.S_IRWXO | stat.S_IRWXG) == 0, data
    for secret in root.glob("*/passwords.json"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.usefixtures("servers")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user; the modes are tested above")
def test_another_user_reads_no_file(root: Path) -> None:
    paths = [root, *root.rglob("*")]
    assert len(paths) > 100
    read = [path for path in paths if _as_nobody("head", "-c1", str(path)).returncode == 0][:1]
    assert read == []
    assert _as_nobody("ls", str(root)).returncode != 0


def _as_nobody(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False)


def test_no_password_is_told_by_what_runs(servers: dict[Store, Server], root: Path) -> None:
    secrets = [text for store in STORES for text in vars(passwords_of(root / store / "data")).values()]
    assert len(set(secrets)) == 6
    for server in servers.values():
        process = psutil.Process(server.pid)
        told = " ".join([*process.cmdline(), *process.environ().values(), repr(server)])
        assert [secret for secret in secrets if secret in told] == []


@pytest.mark.parametrize("user", ["postgres", "root", "tristore", "chatlingo", APP_ROLE, "administrator", "nobody"])
@pytest.mark.parametrize("password", [None, "", "postgres"])
def test_postgresql_takes_nobody_without_the_password(
    servers: dict[Store, Server], root: Path, user: str, password: str | None
) -> None:
    async def enter(host: str) -> None:
        port = servers["postgresql"].port
        await asyncpg.connect(host=host, port=port, user=user, password=password, database="postgres", timeout=5)

    sockets = {path.parent for path in [*root.rglob(".s.PGSQL.*"), *Path("/tmp").glob(".s.PGSQL.*")]}
    for host in ("127.0.0.1", *map(str, sockets)):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            asyncio.run(enter(host))


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "CREATE TABLE t (t text); COPY t FROM PROGRAM 'id'",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO '/tmp/x'",
        "SELECT rolpassword FROM pg_authid",
        "ALTER SYSTEM SET log_statement = 'all'",
        "CREATE ROLE other SUPERUSER",
    ],
)
def test_the_apps_role_runs_no_program_and_reads_no_file(servers: dict[Store, Server], sql: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(servers["postgresql"].dsn.replace("+asyncpg", ""), timeout=5)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(ask())


@pytest.mark.parametrize("command", ["PING", "INFO", "CONFIG GET dir", "AUTH guess", "AUTH default guess", "GET x"])
def test_redis_answers_nobody_without_the_password(servers: dict[Store, Server], command: str) -> None:
    with socket.create_connection(("127.0.0.1", servers["redis"].port), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        assert connection.recv(1000).split()[0] in {b"-NOAUTH", b"-WRONGPASS"}


@pytest.mark.parametrize("account", ["", "admin:admin@", f"{APP_ROLE}:guess@"])
def test_mongodb_tells_nobody_without_the_password(servers: dict[Store, Server], account: str) -> None:
    uri = f"mongodb://{account}127.0.0.1:{servers['mongodb'].port}/?directConnection=true&timeoutMS=5000"
    with pytest.raises(OperationFailure), MongoClient[dict[str, Any]](uri) as client:
        client.list_database_names()


def test_each_store_is_the_apps_with_its_password(servers: dict[Store, Server]) -> None:
    for store, server in servers.items():
        parts = urlsplit(server.dsn)
        assert len(parts.password or "") == 48
        assert (parts.username == APP_ROLE) or store == "redis"
