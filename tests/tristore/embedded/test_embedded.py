"""The embedded servers, with real processes: started, killed, orphaned, adopted."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

import asyncpg
import psutil
import pytest
from pymongo import MongoClient
from redis import Redis

from tristore.embedded.process import end, free_port, gone
from tristore.embedded.servers import STORES, EmbeddedError, EmbeddedServers, Server, Store

# Long, and with a space: a unix socket in it would be refused.
FOLDER = "a folder with spaces " + "and a long name " * 5

START = """
import sys, pathlib, time
from tristore.embedded.servers import EmbeddedServers
servers = EmbeddedServers(pathlib.Path(sys.argv[1])).start_all(sys.argv[2:])
print(*[server.pid for server in servers.values()], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / FOLDER
    yield root
    for store in STORES:
        EmbeddedServers(root).stop(store)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """For tests that need no folder of their own: setting one up takes a second."""
    servers = EmbeddedServers(tmp_path_factory.mktemp("shared") / FOLDER)
    yield servers
    for store in STORES:
        servers.stop(store)


def start_elsewhere(root: Path, *stores: Store) -> "subprocess.Popen[str]":
    """A process that starts servers, prints their pids and then waits."""
    command = [sys.executable, "-c", START, str(root), *stores]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def pids_printed(starter: "subprocess.Popen[str]") -> list[int]:
    assert starter.stdout is not None
    return [int(pid) for pid in starter.stdout.readline().split()]


def postgres(server: Server, sql: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(server.dsn.replace("+asyncpg", ""), timeout=5)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def write(server: Server) -> None:
    if server.store == "postgresql":
        postgres(server, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    elif server.store == "mongodb":
        with MongoClient[dict[str, Any]](server.dsn) as client:
            client["test"].get_collection("kept").insert_one({"answer": 42})
    else:
        with Redis.from_url(server.dsn) as redis:
            redis.set("kept", 42)


def read(server: Server) -> Any:
    if server.store == "postgresql":
        return postgres(server, "SELECT answer FROM kept")
    if server.store == "mongodb":
        with MongoClient[dict[str, Any]](server.dsn) as client:
            found = client["test"].get_collection("kept").find_one()
            return found and found["answer"]
    with Redis.from_url(server.dsn) as redis:
        return redis.get("kept")


@contextmanager
def somebody_else_on(port: int) -> Iterator[None]:
    """Hangs up on everyone. One that keeps silent would cost 30 s: mongod asks at its old address who is there."""
    with TCPServer(("127.0.0.1", port), BaseRequestHandler, bind_and_activate=False) as server:
        server.allow_reuse_address = True
        server.server_bind()
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_a_restart_keeps_ports_and_the_data_of_postgresql_and_mongodb(root: Path) -> None:
    servers = EmbeddedServers(root)
    before = servers.start_all()
    for server in before.values():
        write(server)
    assert [servers.stop(store) for store in STORES] == [True, True, True]
    after = servers.start_all()
    assert {store: after[store].port for store in STORES} == {store: before[store].port for store in STORES}
    assert {store: read(after[store]) for store in STORES} == {"postgresql": 42, "mongodb": 42, "redis": None}


def test_servers_listen_on_loopback_only_and_in_sessions_of_their_own(servers: EmbeddedServers) -> None:
    for server in servers.start_all().values():
        listening = [c.laddr for c in psutil.Process(server.pid).net_connections(kind="all") if c.status == "LISTEN"]
        assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.port)]
        assert os.getsid(server.pid) == server.pid


def test_two_processes_that_start_at_once_get_the_same_servers_and_leave_them_when_killed(root: Path) -> None:
    starters = [start_elsewhere(root, *STORES) for _ in range(2)]
    first, second = [pids_printed(starter) for starter in starters]
    for starter in starters:
        starter.kill()
        starter.communicate()
    assert len(first) == 3
    assert first == second
    processes = [psutil.Process(pid) for pid in first]
    servers = EmbeddedServers(root)
    assert [server.pid for server in servers.start_all().values()] == first
    assert [servers.stop(store) for store in STORES] == [True, True, True]
    assert all(gone(process) for process in processes)


@pytest.mark.parametrize("store", STORES)
def test_a_killed_server_starts_again_on_its_port_with_its_data(servers: EmbeddedServers, store: Store) -> None:
    killed = servers.start(store)
    write(killed)
    os.kill(killed.pid, signal.SIGKILL)
    again = servers.start(store)
    assert (again.port, again.pid == killed.pid) == (killed.port, False)
    assert read(again) == (None if store == "redis" else 42)


def test_a_port_that_is_released_in_a_moment_is_kept() -> None:
    """Threads of a killed MongoDB may hold it after the process is seen to have ended."""
    with TCPServer(("127.0.0.1", 0), BaseRequestHandler) as holder:
        port: int = holder.server_address[1]
        releases = threading.Timer(0.3, holder.server_close)
        releases.start()
        assert free_port(port) == port
        releases.join()


def hang(servers: EmbeddedServers, store: Store) -> None:
    for pid in servers.pids(store):
        with suppress(ProcessLookupError):  # a child may have ended meanwhile
            os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("store", STORES)
def test_a_hung_server_is_woken_by_start_and_stopped_by_stop(servers: EmbeddedServers, store: Store) -> None:
    hung = servers.start(store)
    for _ in range(2):
        hang(servers, store)
        assert servers.start(store) == hung
    hang(servers, store)
    assert servers.stop(store)
    assert servers.status(store) is None


def test_children_of_a_killed_postmaster_that_hang_do_not_block_a_start(servers: EmbeddedServers) -> None:
    killed = servers.start("postgresql")
    write(killed)
    hang(servers, "postgresql")
    os.kill(killed.pid, signal.SIGKILL)
    assert read(servers.start("postgresql")) == 42


@pytest.mark.parametrize("store", STORES)
def test_a_taken_port_is_given_up_and_the_data_is_kept(servers: EmbeddedServers, store: Store) -> None:
    before = servers.start(store)
    write(before)
    servers.stop(store)
    with somebody_else_on(before.port):
        after = servers.start(store)
    assert after.port != before.port
    assert read(after) == (None if store == "redis" else 42)
    if store == "mongodb":
        write(after)  # only a primary accepts this


def test_two_folders_never_touch_each_others_servers(root: Path) -> None:
    one, other = EmbeddedServers(root / "one"), EmbeddedServers(root / "other")
    kept = one.start("redis")
    copied = root / "other" / "redis"
    shutil.copytree(root / "one" / "redis", copied)  # as if the whole repository had been copied while it ran
    assert other.status("redis") is None
    started = other.start("redis")
    assert (started.pid == kept.pid, started.port == kept.port) == (False, False)
    assert other.stop("redis")
    assert one.status("redis") == kept
    assert one.stop("redis")


def test_files_left_by_a_crash_of_the_machine_do_not_block_a_start(servers: EmbeddedServers) -> None:
    crashed = servers.start("postgresql")
    write(crashed)
    os.kill(crashed.pid, signal.SIGKILL)
    lock = crashed.data / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(crashed.pid), str(os.getppid()), 1))  # a pid that somebody else has
    record = crashed.data.with_name("server.json")
    record.write_text(record.read_text().replace(str(crashed.pid), str(os.getppid())))
    assert servers.status("postgresql") is None
    assert read(servers.start("postgresql")) == 42


def test_a_record_that_was_cut_short_is_no_record(root: Path) -> None:
    servers = EmbeddedServers(root)
    first = psutil.Process(servers.start("redis").pid)
    (root / "redis" / "server.json").write_text('{"pid": 1')
    assert servers.start("redis").pid != first.pid
    assert gone(first)


def test_servers_whose_folder_was_deleted_are_ended_by_the_next_start(root: Path) -> None:
    servers = EmbeddedServers(root)
    orphans = [servers.start("postgresql"), servers.start("redis")]
    shutil.rmtree(root)
    assert servers.status("redis") is None
    fresh = servers.start_all(["postgresql", "redis"])
    assert not {server.pid for server in fresh.values()} & {server.pid for server in orphans}
    assert not any(psutil.pid_exists(server.pid) for server in orphans)


def test_an_error_names_the_store_the_cause_and_both_ways_out(root: Path) -> None:
    servers = EmbeddedServers(root, installed=lambda store: [])
    with pytest.raises(EmbeddedError) as error:
        servers.start("mongodb")
    for part in ("mongodb", "no mongod", "docker compose up -d", "MONGODB_DSN"):
        assert part in str(error.value)


def test_one_that_fails_takes_down_those_started_with_it_but_not_the_adopted(root: Path) -> None:
    servers = EmbeddedServers(root)
    servers.start("redis")
    without = EmbeddedServers(root, installed=lambda store: [] if store == "mongodb" else servers.installed(store))
    with pytest.raises(EmbeddedError, match="mongodb"):
        without.start_all()
    assert [without.status(store) is None for store in STORES] == [True, False, True]


def test_a_program_that_is_too_old_or_does_not_run_is_passed_over(root: Path, tmp_path: Path) -> None:
    old, broken = tmp_path / "old", tmp_path / "broken"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'")
    broken.write_text("not a program")
    old.chmod(0o755)
    servers = EmbeddedServers(root, installed=lambda store: [old, broken])
    with pytest.raises(EmbeddedError, match=r"old cannot be used: it is 5.0.14.*broken cannot be used"):
        servers.start("redis")
    assert EmbeddedServers(root, installed=lambda store: [old, broken, *servers.installed(store)]).start("redis")


def test_a_valkey_is_found_again_as_a_redis_is(root: Path, tmp_path: Path) -> None:
    valkey = tmp_path / "valkey-server"
    valkey.symlink_to(next(iter(EmbeddedServers(root).installed("redis"))))
    servers = EmbeddedServers(root, installed=lambda store: [valkey])
    first = psutil.Process(servers.start("redis").pid)
    assert first.name() == "valkey-server"
    (root / "redis" / "server.json").unlink()
    assert servers.start("redis").pid != first.pid
    assert gone(first)


def test_data_of_another_postgresql_major_is_left_alone(root: Path) -> None:
    data = root / "postgresql" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 9"):
        EmbeddedServers(root).start("postgresql")
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_data_made_under_another_name_is_left_alone_and_the_cause_is_told(root: Path) -> None:
    servers = EmbeddedServers(root, name="one")
    made = servers.start("postgresql")
    write(made)
    assert postgres(made, "SELECT current_user || ' in ' || current_database()") == "tristore_app in one"
    servers.stop("postgresql")
    with pytest.raises(EmbeddedError, match="made for another name than 'other'"):
        EmbeddedServers(root, name="other").start("postgresql")
    assert read(servers.start("postgresql")) == 42


def test_a_failed_start_shows_the_end_of_the_log(root: Path) -> None:
    servers = EmbeddedServers(root)
    data = servers.start("postgresql").data
    servers.stop("postgresql")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")
    with pytest.raises(EmbeddedError, match=r'(?s)ended while it was starting.*parameter "nonsense"'):
        servers.start("postgresql")
    assert servers.status("postgresql") is None


def test_a_process_that_does_not_heed_its_signal_is_killed() -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
        process = psutil.Process(stubborn.pid)
        end([process], signal.SIGTERM, seconds=0.2)
        assert gone(process)


def test_what_does_not_run_has_no_status_and_nothing_to_stop(root: Path) -> None:
    servers = EmbeddedServers(root)
    assert [servers.status(store) for store in STORES] == [None, None, None]
    assert [servers.stop(store) for store in STORES] == [False, False, False]
    assert [servers.pids(store) for store in STORES] == [[], [], []]
    assert not root.exists()
