"""Another user of this machine gets nothing of the embedded servers, and the app's role no more than it needs."""

import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import Redis
from redis.exceptions import AuthenticationError

from tristore.embedded.accounts import SYSTEM_USER
from tristore.embedded.passwords import APP_ROLE
from tristore.embedded.postgresql import SUPERUSER
from tristore.embedded.servers import STORES, EmbeddedError, EmbeddedServers, Server, Store
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import PROJECT

NAME = "product"
STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
Running = dict[Store, Server]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One that everybody may enter, as that of a clone is."""
    with guarded_folder("tristore-privacy-") as folder:  # nothing of a run that is killed is left
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def embedded(folder: Path) -> Iterator[EmbeddedServers]:
    root = folder / "data"
    root.mkdir(mode=0o755)
    root.chmod(0o777)  # as nobody should leave it
    embedded = EmbeddedServers(root, name=NAME)
    yield embedded
    for store in STORES:
        embedded.stop(store)


@pytest.fixture
def running(embedded: EmbeddedServers) -> Running:
    return embedded.start_all()


def as_stranger(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, user=STRANGER, group=STRANGER, extra_groups=[], capture_output=True, timeout=20)


async def postgres(dsn: str, sql: str, **instead: Any) -> Any:
    connection = await asyncpg.connect(dsn.replace("+asyncpg", ""), timeout=5, **instead)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@as_root
def test_another_user_reads_no_file_of_a_running_server(folder: Path, running: Running) -> None:
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    assert {"passwords.json", "redis.conf", "key", "pg_hba.conf", "PG_VERSION", "server.log"} <= {f.name for f in files}
    reading = 'for file in "$@"; do cat "$file" && echo "read $file"; done; ls "$0"'
    said = as_stranger("/bin/sh", "-c", reading, str(folder / "data"), *map(str, files))
    assert said.stdout == b""
    assert as_stranger("/bin/ls", str(folder)).stdout == b"data\nheld\n"  # it could read, if it might


@as_root
def test_another_user_finds_no_password_among_the_processes(running: Running) -> None:
    secrets = [s for server in running.values() for s in json.loads(passwords_file(server).read_text()).values()]
    seen = as_stranger("/bin/sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout.decode(errors="replace")
    assert str(running["redis"].data) in seen
    assert not [secret for secret in secrets if secret in seen]


def passwords_file(server: Server) -> Path:
    return server.data.with_name("passwords.json")


def test_passwords_are_their_owners_and_of_each_server_its_own(running: Running) -> None:
    files = [passwords_file(server) for server in running.values()]
    assert {(stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) for file in files} == {(0o600, os.geteuid())}
    assert len({secret for file in files for secret in json.loads(file.read_text()).values()}) == 2 * len(STORES)
    assert all(secret not in repr(running) for file in files for secret in json.loads(file.read_text()).values())


def test_folders_are_closed_to_all_but_the_owner_and_the_server(folder: Path, running: Running) -> None:
    for path in [folder / "data", *(server.data.parent for server in running.values())]:
        assert path.stat().st_mode & 0o067 == 0
        if path.stat().st_mode & 0o010:  # to pass through
            assert path.stat().st_gid == pwd.getpwnam(SYSTEM_USER).pw_gid
    assert {stat.S_IMODE(server.data.stat().st_mode) for server in running.values()} == {0o700}


@pytest.mark.parametrize("user", [NAME, SUPERUSER, APP_ROLE])
async def test_nobody_is_let_into_postgresql_without_a_password(running: Running, user: str) -> None:
    for password in "", user:
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            await postgres(running["postgresql"].dsn, "SELECT 1", user=user, password=password)
    hba = (running["postgresql"].data / "pg_hba.conf").read_text()
    assert "trust" not in hba
    assert await postgres(running["postgresql"].administrator_dsn, "SHOW unix_socket_directories") == ""


async def test_the_apps_role_owns_its_database_and_runs_no_program(running: Running) -> None:
    dsn = running["postgresql"].dsn
    assert await postgres(dsn, "SELECT current_user || ' in ' || current_database()") == f"{APP_ROLE} in {NAME}"
    assert (
        await postgres(dsn, "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()")
        == APP_ROLE
    )
    rights = (
        "SELECT rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    )
    assert await postgres(dsn, rights) is False
    await postgres(dsn, "CREATE TABLE here (line text)")
    for forbidden in (
        "COPY here FROM PROGRAM 'id'",
        "COPY here FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await postgres(dsn, forbidden)
    assert await postgres(running["postgresql"].administrator_dsn, "SHOW is_superuser") == "on"


def test_redis_answers_nobody_without_the_password(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running["redis"].port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")
    with Redis.from_url(running["redis"].dsn) as redis:
        assert redis.ping()
    with Redis(port=running["redis"].port, password="wrong") as redis, pytest.raises(AuthenticationError):
        redis.ping()


def test_mongodb_tells_nobody_anything_and_takes_no_first_user(running: Running) -> None:
    with MongoClient[dict[str, Any]]("127.0.0.1", running["mongodb"].port, directConnection=True) as client:
        with pytest.raises(OperationFailure, match="requires authentication"):
            client.list_database_names()
        with pytest.raises(OperationFailure, match=r"requires authentication|not authorized"):
            client.admin.command("createUser", "me", pwd="me", roles=["root"])


def test_the_apps_user_of_mongodb_makes_no_users_and_changes_no_server(running: Running) -> None:
    with MongoClient[dict[str, Any]](running["mongodb"].dsn) as client:
        client["any"].get_collection("kept").insert_one({"answer": 42})
        for command in {"createUser": "me", "pwd": "me", "roles": []}, {"setParameter": 1, "logLevel": 1}, {"fsync": 1}:
            with pytest.raises(OperationFailure, match="not authorized"):
                client.admin.command(command)
    with MongoClient[dict[str, Any]](running["mongodb"].administrator_dsn) as client:
        assert "any" in client.list_database_names()


@as_root
def test_root_gives_its_servers_to_a_user_who_is_nobody(running: Running) -> None:
    owners = {psutil.Process(server.pid).uids().real for server in running.values()}
    assert owners == {pwd.getpwnam(SYSTEM_USER).pw_uid}
    assert {server.data.stat().st_uid for server in running.values()} == owners
    assert {server.data.parent.stat().st_uid for server in running.values()} == {0}


@as_root
def test_where_that_user_cannot_go_the_servers_are_in_a_user_namespace(tmp_path: Path) -> None:
    embedded = EmbeddedServers(tmp_path / "closed", name=NAME)  # above it is a folder that only root may enter
    try:
        for server in embedded.start_all(["redis", "postgresql"]).values():
            inside = Path(f"/proc/{server.pid}/uid_map").read_text().split()
            assert inside == ["1000", "0", "1"]
            assert psutil.Process(server.pid).uids().real == 0
            assert "CapEff:\t0000000000000000" in Path(f"/proc/{server.pid}/status").read_text()
    finally:
        for store in STORES:
            embedded.stop(store)


async def test_lost_passwords_are_made_anew_and_the_data_stays(embedded: EmbeddedServers, running: Running) -> None:
    await postgres(running["postgresql"].dsn, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    with MongoClient[dict[str, Any]](running["mongodb"].dsn) as client:
        client["kept"].get_collection("kept").insert_one({"answer": 42})
    for server in running.values():
        passwords_file(server).unlink()
    anew = embedded.start_all()
    assert not {server.dsn for server in anew.values()} & {server.dsn for server in running.values()}
    assert await postgres(anew["postgresql"].dsn, "SELECT answer FROM kept") == 42
    with MongoClient[dict[str, Any]](anew["mongodb"].dsn) as client:
        assert client["kept"].get_collection("kept").count_documents({"answer": 42}) == 1
    with Redis.from_url(anew["redis"].dsn) as redis:
        assert redis.ping()


async def test_data_of_an_older_release_gets_passwords_and_is_the_apps(folder: Path) -> None:
    """It was made without any, and its superuser had the product's name."""
    embedded = EmbeddedServers(folder / "older", name=NAME)
    data = folder / "older" / "postgresql" / "data"
    data.parent.mkdir(parents=True)
    program = next(p for p in map(Path, embedded.installed("postgresql")) if p.exists())
    made_by_older_release(program.resolve().parent, data)
    try:
        server = embedded.start("postgresql")
        assert await postgres(server.dsn, "SELECT answer FROM kept") == 42
        await postgres(server.dsn, "ALTER TABLE kept ADD also mood")
        assert await postgres(server.dsn, "SELECT rolcanlogin FROM pg_roles WHERE rolname = $$product$$") is False
        with pytest.raises(asyncpg.InvalidPasswordError):
            await postgres(server.dsn, "SELECT 1", user=NAME, password="")
    finally:
        embedded.stop("postgresql")


OLDER = """CREATE TABLE kept (id serial, answer int)
INSERT INTO kept (answer) VALUES (42)
CREATE TYPE mood AS ENUM ('good')
"""


def made_by_older_release(programs: Path, data: Path) -> None:
    user = pwd.getpwnam(SYSTEM_USER) if os.geteuid() == 0 else None
    who: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    data.mkdir(mode=0o700)
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
    env = {**os.environ, "LC_ALL": "C"}

    def run(program: str, *words: str, text: str = "") -> None:
        command = [str(programs / program), *words]
        subprocess.run(command, check=True, capture_output=True, text=True, input=text, env=env, **who)

    run("initdb", f"--pgdata={data}", f"--username={NAME}", "--auth=trust", "--encoding=UTF8")
    run("postgres", "--single", "-D", str(data), "postgres", text=f"CREATE DATABASE {NAME}\n")
    run("postgres", "--single", "-D", str(data), NAME, text=OLDER)


def test_a_folder_that_all_users_share_is_refused_and_not_changed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(EmbeddedError, match="all users share"):
        EmbeddedServers(shared).start("redis")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


@as_root
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir(mode=0o755)
    become = f"import os, sys, pathlib\nfrom tristore.embedded.accounts import make_private\nos.setuid({STRANGER})\n"
    command = [sys.executable, "-c", become + "make_private(pathlib.Path(sys.argv[1]))", str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=30)
    assert f"CannotRun: {theirs} belongs to another user" in done.stderr
