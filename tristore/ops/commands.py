"""The commands that every service has: `python manage.py --help`."""

from collections.abc import Callable

import click

from tristore.errors import TristoreError
from tristore.ops.embedded_stores import fail, running_settings
from tristore.ops.service import Service
from tristore.ops.stores_commands import stores_commands
from tristore.settings import S

# What takes long to import is imported where it is used.


def service_commands(service: Service[S]) -> click.Group:
    """serve, migrate, migration, outbox, saga and stores. The product adds its own."""

    @click.group()
    def cli() -> None:
        """Commands of the service."""

    @cli.command()
    def serve() -> None:
        """Start the stores that have no DSN, migrate, and serve the API until Ctrl-C."""
        from tristore.ops.serve import serve

        serve(service)

    @cli.command()
    def migrate() -> None:
        """Bring the schemas of PostgreSQL and MongoDB up to this release; safe from several pods at once."""
        _migrate(service)

    @cli.command()
    @click.argument("name")
    def migration(name: str) -> None:
        """Write PostgreSQL's next migration from what the models say and the migrations do not."""
        from alembic.util import CommandError

        from tristore.migrations.new import write_migration
        from tristore.ops.cures import told

        try:
            write_migration(service.read_settings(), service.migrations()[0], name)
        except TristoreError as error:
            fail(f"No migration was written: {told(error)}")
        except CommandError as error:
            fail(f"No migration was written: {error}")

    @_group(cli, "outbox")
    def outbox(arguments: tuple[str, ...]) -> None:
        """What is owed to Redis and MongoDB: list, show, retry, skip, drain."""
        from tristore.ops.outbox_commands import outbox_commands

        outbox_commands(service).main(arguments, prog_name="manage.py outbox")

    @_group(cli, "saga")
    def saga(arguments: tuple[str, ...]) -> None:
        """Work over several stores that is not at its end: list, show, retry, compensate."""
        from tristore.ops.saga_commands import saga_commands

        saga_commands(service).main(arguments, prog_name="manage.py saga")

    cli.add_command(stores_commands(service))
    return cli


def _group(cli: click.Group, name: str) -> Callable[[Callable[[tuple[str, ...]], None]], click.Command]:
    """A command that hands its arguments on to a group, which is imported only then."""

    def add(function: Callable[[tuple[str, ...]], None]) -> click.Command:
        with_arguments = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(function)
        passing_on = cli.command(name, context_settings={"ignore_unknown_options": True}, add_help_option=False)
        return passing_on(with_arguments)

    return add


def _migrate(service: Service[S]) -> None:
    from alembic.util import CommandError

    from tristore.errors import StoreUnavailable
    from tristore.ops.cures import told
    from tristore.ops.migrate import migrate

    with running_settings(service) as settings:
        try:
            migrate(settings, *service.migrations())
        except StoreUnavailable as error:
            fail(f"Not migrated: {told(error)}")
        except CommandError as error:
            fail(f"Not migrated: {error}")
    click.echo("PostgreSQL and MongoDB are migrated.")
