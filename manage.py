"""The service's commands: `python manage.py --help`."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import click

from config import NAME, Settings
from tristore.ops.commands import service_commands
from tristore.ops.embedded_stores import fail, running_settings
from tristore.ops.service import Service

if TYPE_CHECKING:
    from tristore.migrations.history import History
    from tristore.migrations.scripts import Scripts
    from tristore.ops.agreement import Check
    from wiring import Services

# What takes long to import is imported where it is used.


def _open_services(settings: Settings) -> "AbstractAsyncContextManager[Services]":
    from wiring import open_services

    return open_services(settings)


def _migrations() -> "tuple[History, Scripts]":
    from migrations import REVISIONS, SCRIPTS

    return REVISIONS, SCRIPTS


def _checks(services: "Services") -> "Sequence[Check]":
    from commands.checks import checks

    return checks(services)


NEXT_STEPS = (
    ("{url}", "in a browser: the API, to read and to try out"),
    (".venv/bin/python manage.py create-admin NAME EMAIL", "the first admin"),
    ("make demo", "take a database away with a click, and watch"),
    ("docs/first-hour.md", "what to do with it in the first hour"),
    ("make help", "what else there is"),
)
SERVICE = Service(NAME, Settings, _open_services, _migrations, _checks, next_steps=NEXT_STEPS)
cli = service_commands(SERVICE)


@cli.command()
@click.argument("username")
@click.argument("email")
@click.password_option(help="Asked for where it is missing. Here other users of the machine may see it.")
def create_admin(username: str, email: str, password: str) -> None:
    """Register a user with the role admin. USERNAME signs in; the password is asked for."""
    from commands.users import create_admin

    with running_settings(SERVICE) as settings:
        click.echo(f"Created admin {create_admin(settings, username, email, password)}.")


@cli.command()
@click.argument("user_ids", metavar="ID...", nargs=-1, required=True, type=click.UUID)
@click.confirmation_option(prompt="All that the stores have of these users is deleted for good. Go on?")
def erase(user_ids: Sequence[uuid.UUID]) -> None:
    """Erase users, or what is left of users whom PostgreSQL does not know. It may be done twice. After a restore: see
    docs/backups.md."""
    from commands.users import erase

    with running_settings(SERVICE) as settings:
        erase(settings, user_ids)
    click.echo(f"Erased {len(user_ids)}.")


@cli.command()
@click.option("--browser/--no-browser", default=True, help="Whether to open the page.")
def demo(browser: bool) -> None:
    """Fill a day of data, and open a page on which one stops and starts stores. On this machine, with stores of its own
    that are gone at the end."""
    try:
        from commands.demo import demo
    except ModuleNotFoundError as error:
        fail(f"The demo is for development ({error.name} is missing here): `make demo` installs what it needs.")
    demo(browser)


if __name__ == "__main__":
    cli()
