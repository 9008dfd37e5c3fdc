"""What Alembic's two `env.py` do, for the machinery's tables and for the product's. One pod migrates at a time."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypedDict

import click
from alembic import context
from sqlalchemy import Connection, MetaData

from tristore.migrations import own
from tristore.migrations.history import OWN
from tristore.migrations.patience import migrate_under_lock
from tristore.settings import MissingDSN, TristoreSettings, load

ReadSettings = Callable[[], TristoreSettings]


class Options(TypedDict, total=False):
    """What the two differ in."""

    target_metadata: MetaData
    include_name: Callable[[str | None, str, object], bool]
    version_table: str


def run_product(metadata: MetaData, settings: ReadSettings) -> None:
    """Do on the product's tables what Alembic was asked for. Before a change it migrates the machinery's tables."""
    options: Options = {"target_metadata": metadata, "include_name": _is_the_products}
    if context.is_offline_mode():
        click.echo("-- Run before this: alembic -c tristore/migrations/alembic.ini upgrade head --sql", err=True)
    _run(options, own.upgrade, settings)


def run_own() -> None:
    """Do on the machinery's tables what Alembic was asked for."""
    options: Options = {"target_metadata": own.METADATA, "include_name": _is_own, "version_table": OWN.version_table}
    _run(options, own.adopt, partial(load, TristoreSettings))


def _is_the_products(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or name not in own.NAMES


def _is_own(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or name in own.NAMES


def _run(options: Options, before: Callable[[Connection], object], settings: ReadSettings) -> None:
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, transaction_per_migration=True, **options
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    changes = _has_a_target()

    def run(connection: Connection) -> None:
        if changes:
            before(connection)
        context.configure(connection=connection, transaction_per_migration=True, **options)
        with context.begin_transaction():
            context.run_migrations()

    asyncio.run(migrate_under_lock(_dsn(settings), run, mend=changes))


def _has_a_target() -> bool:
    """True for `upgrade` and `downgrade`, not for what only looks: `current`, `check`, `revision --autogenerate`."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def _dsn(settings: ReadSettings) -> str:
    try:
        return context.config.attributes.get("dsn") or settings().migrations_dsn()
    except MissingDSN as error:
        raise SystemExit(str(error)) from None
