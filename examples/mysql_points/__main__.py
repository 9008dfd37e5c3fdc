"""The commands of `manage.py`, for this application: `python -m examples.mysql_points --help`."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import click

from config import NAME
from examples.mysql_points.settings import PointsSettings
from tristore.ops.commands import service_commands
from tristore.ops.service import Service

if TYPE_CHECKING:
    from examples.mysql_points.wiring import PointsServices
    from tristore.migrations.history import History
    from tristore.migrations.scripts import Scripts

# What takes long to import is imported where it is used.


def _open_services(settings: PointsSettings) -> "AbstractAsyncContextManager[PointsServices]":
    from examples.mysql_points.wiring import open_services

    return open_services(settings)


def _migrations() -> "tuple[History, Scripts]":
    from migrations import REVISIONS, SCRIPTS

    return REVISIONS, SCRIPTS


SERVICE = Service(NAME, PointsSettings, _open_services, _migrations, module="examples.mysql_points.app")
cli = service_commands(SERVICE)


@cli.command()
def create_tables() -> None:
    """Create the tables in MySQL that are not there yet."""
    asyncio.run(_create_tables(SERVICE.read_settings()))
    click.echo("MySQL has its tables.")


async def _create_tables(settings: PointsSettings) -> None:
    from examples.mysql_points.mysql import open_mysql
    from tristore.errors import StoreUnavailable
    from tristore.ops.cures import told

    mysql = open_mysql(settings)
    try:
        await mysql.create_tables()
    except StoreUnavailable as error:
        raise click.ClickException(told(error)) from None
    finally:
        await mysql.close()


if __name__ == "__main__":
    cli()
