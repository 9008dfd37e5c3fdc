"""`manage.py stores`: the embedded servers."""

import shlex
from typing import TYPE_CHECKING, get_args

import click

from tristore.errors import StoreName
from tristore.ops.embedded_stores import embedded_servers, has_dsn, start_stores
from tristore.ops.service import Service
from tristore.ops.store_table import aligned, store_row
from tristore.ops.terminal import Group, coloured
from tristore.settings import DSN_FIELDS, S, TristoreSettings

if TYPE_CHECKING:  # never installed in production
    from tristore.embedded.servers import EmbeddedServers

STORE = click.argument("store", type=click.Choice(get_args(StoreName)), required=False)


def stores_commands(service: Service[S]) -> click.Group:
    """The commands, on the data folder that the settings name."""

    @click.group(cls=Group)
    def stores() -> None:
        """Real servers on loopback for the stores that have no DSN."""

    @stores.command()
    @STORE
    def status(store: StoreName | None) -> None:
        """Show where each store is."""
        settings = service.read_settings()
        _show(settings, embedded_servers(service, settings), store)

    @stores.command()
    @STORE
    def start(store: StoreName | None) -> None:
        """Start the embedded servers of stores that have no DSN, and print their DSNs."""
        settings = service.read_settings()
        servers = embedded_servers(service, settings)
        running = start_stores(servers, [name for name in _chosen(store) if not has_dsn(settings, name)])
        _show(settings, servers, store)
        for name, server in running.items():
            click.echo(f"export {DSN_FIELDS[name].upper()}={shlex.quote(server.dsn)}")

    @stores.command()
    @STORE
    def stop(store: StoreName | None) -> None:
        """Stop the embedded servers. Their data stays."""
        settings = service.read_settings()
        servers = embedded_servers(service, settings)
        for name in _chosen(store):
            servers.stop(name)
        _show(settings, servers, store)

    return stores


def _chosen(store: StoreName | None) -> list[StoreName]:
    return [store] if store else list(DSN_FIELDS)


def _show(settings: TristoreSettings, servers: "EmbeddedServers", store: StoreName | None) -> None:
    rows = [
        store_row(settings, name, None if has_dsn(settings, name) else servers.status(name)) for name in _chosen(store)
    ]
    click.echo(coloured(aligned([("STORE", "STATE", "WHERE", "DATA"), *rows])))
