"""The service's commands: `python manage.py --help`."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import click

from config import NAME, Settings
from tristore.ops.commands import service_commands
from tristore.ops.embedded_stores import running_settings
from tristore.ops.service import Service

if TYPE_CHECKING:
    from tristore.migrations.history import History
    from tristore.migrations.scripts import Scripts
    from wiring import Services

# What takes long to import is imported where it is used.


def _open_services(settings: Settings) -> "AbstractAsyncContextManager[Services]":
    from wiring import open_services

    return open_services(settings)


def _migrations() -> "tuple[History, Scripts]":
    from migrations import REVISIONS, SCRIPTS

    return REVISIONS, SCRIPTS


SERVICE = Service(NAME, Settings, _open_services, _migrations)
cli = service_commands(SERVICE)


@cli.command()
@click.argument("username")
@click.argument("email")
@click.password_option()
def create_admin(username: str, email: str, password: str) -> None:
    """Register a user with the role admin."""
    from commands.users import create_admin

    with running_settings(SERVICE) as settings:
        click.echo(f"Created admin {create_admin(settings, username, email, password)}.")


if __name__ == "__main__":
    cli()
