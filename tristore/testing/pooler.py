"""PgBouncer in front of an embedded PostgreSQL: `make test-pooler` runs tests through it."""

import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tristore.embedded.accounts import choose_account
from tristore.embedded.process import free_port, spawn
from tristore.embedded.servers import Server

MODE = os.environ.get("POOLER", "")
"""Of its pools: transaction, session, or empty where there is none."""
CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = users
pool_mode = {mode}
max_client_conn = 1000
default_pool_size = {pool_size}
"""
POOL_SIZE = {"session": 60, "transaction": 20}
_ports: dict[int, int] = {}


def port_of(server: Server, folder: Path) -> int:
    """Of the pooler in front of a server. It is started at the first call, works in the folder, and ends with it."""
    if server.port not in _ports:
        _ports[server.port] = _start(server, folder)
    return _ports[server.port]


def settings_through(server: Server) -> dict[str, str]:
    """Settings that lead to the server through its pooler, if it has one."""
    if server.port not in _ports:
        return {}
    through = server.dsn.replace(f":{server.port}", f":{_ports[server.port]}")
    return {"postgres_dsn": through, "postgres_migrations_dsn": server.dsn, "postgres_pooler": MODE}


def _start(server: Server, folder: Path) -> int:
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        raise RuntimeError("PgBouncer is not installed: apt-get install pgbouncer")
    port, address, data = free_port(None), urlsplit(server.dsn), folder / "pooler" / "data"
    data.mkdir(parents=True)
    (data / "users").write_text(f'"{address.username}" "{address.password}"\n')
    values = {"server_port": server.port, "port": port, "mode": MODE, "pool_size": POOL_SIZE[MODE]}
    (data / "pgbouncer.ini").write_text(CONFIG.format(**values))
    account = choose_account(Path(program), os.environ, data, refuses_root=True)
    account.take_over(data)
    process = spawn([program, "pgbouncer.ini"], data, data.with_name("pooler.log"), os.environ, account)
    deadline = time.monotonic() + 10
    while not _listens(port):
        if time.monotonic() > deadline or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"PgBouncer does not start: {data.with_name('pooler.log').read_text()}")
        time.sleep(0.02)
    return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
