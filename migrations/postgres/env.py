"""Alembic's environment: the DSN comes from Settings, one pod migrates at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from config import get_settings
from models.tables import metadata
from tristore.migrations.patience import migrate_under_lock
from tristore.settings import MissingDSN


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def dsn() -> str:
    try:
        return context.config.attributes.get("dsn") or get_settings().dsn("postgres_dsn")
    except MissingDSN as error:
        raise SystemExit(str(error)) from None


def has_a_target() -> bool:
    """True for `upgrade` and `downgrade`, not for what only looks: `current`, `check`, `revision --autogenerate`."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


asyncio.run(migrate_under_lock(dsn(), run, mend=has_a_target()))
