"""A new migration: what the models say and the migrations do not."""

import asyncio
import os
import secrets
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from alembic import command
from alembic.operations import ops
from alembic.script import Script
from sqlalchemy import make_url, text

from tristore.migrations.failures import MigrationFailed
from tristore.migrations.history import History
from tristore.migrations.lock import migration_engine, unlimited
from tristore.settings import TristoreSettings
from tristore.stores.postgres import translate_errors

WORDS: dict[type[ops.MigrateOperation], str] = {
    ops.CreateTableOp: "makes the table {op.table_name}",
    ops.DropTableOp: "DROPS the table {op.table_name}",
    ops.AddColumnOp: "adds the column {op.table_name}.{op.column.name}",
    ops.DropColumnOp: "DROPS the column {op.table_name}.{op.column_name}",
    ops.AlterColumnOp: "changes the column {op.table_name}.{op.column_name}",
    ops.CreateIndexOp: "makes the index {op.index_name}",
    ops.DropIndexOp: "drops the index {op.index_name}",
    ops.CreateForeignKeyOp: "adds the foreign key {op.constraint_name}",
    ops.CreateUniqueConstraintOp: "adds the constraint {op.constraint_name}",
    ops.DropConstraintOp: "drops the constraint {op.constraint_name}",
}


def write_migration(settings: TristoreSettings, product: History, name: str) -> None:
    """Write the next revision and say what it does; write none where there is nothing to do. It compares with an empty
    database that it migrates and drops, so your data is neither read nor changed. Raises StoreUnavailable and
    Alembic's CommandError."""
    done: list[str] = []

    def keep(context: object, revision: object, directives: list[ops.MigrationScript]) -> None:
        upgrade = directives[0].upgrade_ops
        assert upgrade
        done.extend(_in_words(upgrade))
        if not done:
            directives.clear()

    with _empty_database(settings) as dsn, translate_errors():
        config = product.config(dsn)
        config.cmd_opts = Namespace(quiet=True)
        command.upgrade(config, "head")
        written = command.revision(
            config, name, autogenerate=True, rev_id=_next_number(product), process_revision_directives=keep
        )
    click.echo(_said(written, done))


def _next_number(product: History) -> str:
    numbers = [script.revision for script in product.scripts().walk_revisions() if script.revision.isdigit()]
    return f"{int(max(numbers, default='0')) + 1:04}"


def _in_words(operations: ops.UpgradeOps | ops.ModifyTableOps) -> Iterator[str]:
    for operation in operations.ops:
        if isinstance(operation, ops.ModifyTableOps):
            yield from _in_words(operation)
        else:
            yield WORDS.get(type(operation), type(operation).__name__).format(op=operation)


def _said(written: object, done: list[str]) -> str:
    if not isinstance(written, Script):
        return "There is nothing to do: the migrations make what the models say. A model counts once it is imported."
    path = Path(written.path)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return "\n".join([f"Wrote {shown}, which", *(f"  - {line}" for line in done), "Read it, then run `make migrate`."])


@contextmanager
def _empty_database(settings: TristoreSettings) -> Iterator[str]:
    """The DSN of a database that is dropped at the end. It is on the server of the settings, or on an embedded one."""
    if settings.postgres_dsn is None:
        with _embedded_server() as dsn:
            yield dsn
        return
    dsn, name = settings.migrations_dsn(), f"migration_{os.getpid()}_{secrets.token_hex(4)}"
    asyncio.run(_administer(dsn, f"CREATE DATABASE {name}"))
    try:
        yield make_url(dsn).set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(_administer(dsn, f"DROP DATABASE {name}"))  # waits for the connections to end


@contextmanager
def _embedded_server() -> Iterator[str]:
    try:
        from tristore.embedded.servers import EmbeddedError, EmbeddedServers
    except ModuleNotFoundError as error:
        raise MigrationFailed(
            f"the embedded PostgreSQL is not installed ({error.name} is missing). Set POSTGRES_DSN to your server."
        ) from None
    with TemporaryDirectory() as folder:
        servers = EmbeddedServers(Path(folder))
        try:
            yield servers.start("postgresql").dsn
        except EmbeddedError as error:
            raise MigrationFailed(str(error)) from None
        finally:
            servers.stop("postgresql")


async def _administer(dsn: str, statement: str) -> None:
    with translate_errors():
        async with unlimited(migration_engine(dsn), autocommit=True) as connection:
            await connection.execute(text(statement))
