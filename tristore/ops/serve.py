"""`manage.py serve`, which is `make run`: stores, migrations, the API, and the end of all three."""

import errno
import signal
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from tristore.errors import StoreName
from tristore.ops.embedded_stores import STOP_SIGNALS, fail, running_stores
from tristore.ops.service import Service
from tristore.ops.store_table import aligned, store_row
from tristore.ops.terminal import coloured
from tristore.settings import DSN_FIELDS, S, TristoreSettings

if TYPE_CHECKING:  # never installed in production
    from tristore.embedded.servers import Server

# What takes long to import is imported where it is used: by then `serve` handles Ctrl-C.

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers and clients keep an idle connection (often 60). The side that sends must be the one that
closes first, or a request meets a connection that is just being closed."""
GRACE_SECONDS = 5
"""So long requests that are under way may take to end. Streams of events end only when they are cut off."""
PROTOCOL = "tristore.http.protocol:HttpProtocol"
"""By its name, as uvicorn's command line takes it too: nothing in tristore/ops knows HTTP."""


def server_options(settings: TristoreSettings) -> dict[str, Any]:
    """Of uvicorn, for each way to start it."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": PROTOCOL,
        "lifespan": "on",  # without it, an application that fails to start would be served
        "log_config": None,  # its own would print beside ours
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "proxy_headers": False,  # TRUSTED_PROXIES says whom to believe
        "server_header": False,
    }


def serve(service: Service[S]) -> None:
    """Start the stores that have no DSN, migrate, serve until Ctrl-C or SIGTERM, and stop the stores. Raises
    SystemExit."""
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        # uvicorn raises the signals it got again when it is done. SIGTERM's own action would end us there and then.
        signals.append(number)
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        _serve(service, signals)
    except (KeyboardInterrupt, SystemExit):  # the latter when the signal came while the app was starting
        if not signals:
            raise


def _serve(service: Service[S], signals: list[int]) -> None:
    import uvicorn

    settings = service.read_settings()
    _require_free_port(settings.host, settings.port)
    importer = ThreadPoolExecutor(1)
    importer.submit(import_module, service.module)  # as slow as the stores; uvicorn tells what is wrong with it
    with running_stores(service, settings) as running:
        importer.shutdown()
        settings = service.read_settings()
        _migrate(service, settings)
        click.echo(coloured(_first_screen(settings, running, service.next_steps)))
        server = uvicorn.Server(uvicorn.Config(f"{service.module}:app", workers=1, **server_options(settings)))
        server.should_exit = bool(signals)  # a KeyboardInterrupt that falls into a callback or finalizer is lost
        server.run()
        if not server.started:
            fail("The API did not start.")


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"Port {port} on {host} is in use. Choose another one: PORT={port + 1} make run")
        fail(f"Cannot listen on {host}, port {port}: {error.strerror}")


def _migrate(service: Service[S], settings: S) -> None:
    from alembic.util import CommandError

    from tristore.errors import StoreUnavailable
    from tristore.ops.cures import told
    from tristore.ops.migrate import migrate

    try:
        migrate(settings, *service.migrations())
    except StoreUnavailable as error:  # the API says so too, and is ready once this is made up for
        click.echo(f"Not migrated: {told(error)} Run `make migrate` after that.", err=True)
    except CommandError as error:
        fail(f"Not migrated: {error}")


def _first_screen(
    settings: TristoreSettings, running: "Mapping[StoreName, Server]", next_steps: Sequence[tuple[str, str]]
) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - only shown
    url = f"http://{host}:{settings.port}"
    mail = [("Mail", f"{url}/mail")] if settings.mail_folder else []
    rows = [
        ("API", url),
        ("Docs", f"{url}/docs"),
        *mail,
        *(store_row(settings, one, running.get(one)) for one in DSN_FIELDS),
    ]
    steps = aligned((step.replace("{url}", url), told) for step, told in next_steps)
    end = "Ctrl-C stops the API" + (", then the embedded stores; their data stays." if running else ".")
    return "\n\n".join(["\n" + aligned(rows), *(["Next:\n" + steps] if steps else []), end + "\n"])
