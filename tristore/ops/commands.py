"""The commands that every service has: `python manage.py --help`."""

import sys
from collections.abc import Callable

import click

from tristore.errors import TristoreError
from tristore.ops.embedded_stores import fail, running_settings
from tristore.ops.service import Service
from tristore.ops.stores_commands import stores_commands
from tristore.ops.terminal import Group
from tristore.settings import S

SETTLE_SECONDS = 6.0
"""Longer than a lease of the outbox lasts, and than a request may wait for a store: what was under way has ended."""

# What takes long to import is imported where it is used.


def service_commands(service: Service[S]) -> click.Group:
    """serve, run, migrate, migration, backfill, check, outbox, saga and stores. The product adds its own."""

    @click.group(cls=Group)
    def cli() -> None:
        """Commands of the service."""

    @cli.command()
    def serve() -> None:
        """Start the stores that have no DSN, migrate, and serve the API until Ctrl-C."""
        from tristore.ops.serve import serve

        serve(service)

    @cli.command()
    def run() -> None:
        """Serve the API on stores that run already, with WEB_CONCURRENCY processes: for images and pods."""
        from tristore.ops.run import run

        run(service)

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

    @cli.command()
    @click.argument("table")
    @click.argument("column")
    @click.argument("expression")
    @click.option("--key", default="id", show_default=True, help="The column by which rows are taken.")
    @click.option("--batch", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Rows at a time.")
    def backfill(table: str, column: str, expression: str, key: str, batch: int) -> None:
        """Fill COLUMN of TABLE in PostgreSQL with EXPRESSION, which is SQL over the row, beside the running service.
        Then compare all rows. Ends with 1 when any differ. See docs/migrations.md."""
        from tristore.ops.backfill import backfill

        sys.exit(backfill(service, table, column, expression, key, batch))

    @cli.command()
    @click.option("--json", "as_json", is_flag=True, help="All findings, for a program.")
    @click.option(
        "--settle",
        type=click.FloatRange(min=0),
        default=SETTLE_SECONDS,
        show_default=True,
        help="Seconds until what seems wrong is looked at again. What is under way must have ended by then.",
    )
    def check(as_json: bool, settle: float) -> None:
        """Find what disagrees between the stores, as after a restore, and say what to do. It may run beside the
        service. Ends with 0 when all agree, with 1 when something does not, with 2 when a store did not answer."""
        from tristore.ops.check import check

        sys.exit(check(service, settle, as_json=as_json))

    cli.add_command(LaterGroup("outbox", "What is owed to other stores and to mail.", lambda: _outbox(service)))
    cli.add_command(LaterGroup("saga", "Use cases over several stores that have not ended.", lambda: _saga(service)))
    cli.add_command(stores_commands(service))
    return cli


class LaterGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, name: str, told: str, load: Callable[[], click.Group]) -> None:
        super().__init__(name, help=told)
        self._load = load

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._load().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load().get_command(ctx, cmd_name)


def _outbox(service: Service[S]) -> click.Group:
    from tristore.ops.outbox_commands import outbox_commands

    return outbox_commands(service)


def _saga(service: Service[S]) -> click.Group:
    from tristore.ops.saga_commands import saga_commands

    return saga_commands(service)


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
