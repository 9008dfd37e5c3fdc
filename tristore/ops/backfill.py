"""`manage.py backfill`: fill a column while the service works, and compare."""

import asyncio

import click
from sqlalchemy.exc import DBAPIError

from tristore.errors import TristoreError
from tristore.migrations.backfill import Backfill, Compared
from tristore.migrations.failures import sqlstate
from tristore.ops.cures import told
from tristore.ops.embedded_stores import running_settings
from tristore.ops.service import Service
from tristore.ops.terminal import Progress
from tristore.settings import S
from tristore.stores.postgres import translate_errors


def backfill(service: Service[S], table: str, column: str, expression: str, key: str, batch: int) -> int:
    """Returns the exit code. Raises click.ClickException."""
    try:
        filled = Backfill(table, column, expression, key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with running_settings(service) as settings:
        try:
            changed, compared = asyncio.run(_run(filled, settings.migrations_dsn(), batch))
        except TristoreError as error:
            raise click.ClickException(told(error)) from None
        except DBAPIError as error:
            message = f"PostgreSQL refuses it ({sqlstate(error)}): look at the names and at the expression."
            raise click.ClickException(message) from None
    click.echo(f"{changed} rows changed. Of {compared.number} rows {compared.differ} differ.")
    click.echo(f"Checksums: {compared.expected} expected, {compared.found} found.")
    return 0 if compared.agree else 1


async def _run(filled: Backfill, dsn: str, batch: int) -> tuple[int, Compared]:
    with translate_errors():
        changed = await filled.run(dsn, Progress(), batch)
        return changed, await filled.compare(dsn)
