"""The migrations of the machinery's own tables. They run before the product's."""

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text

import tristore.outbox.tables
import tristore.saga.tables  # noqa: F401 - both make the tables known
from tristore.migrations.history import OWN
from tristore.models import OwnTable

METADATA = OwnTable.metadata
NAMES = {OWN.version_table, *METADATA.tables}

# Earlier releases made these tables in the product's migrations. What is there tells which revision it is like.
FOUND = text(
    "SELECT CASE WHEN to_regclass('outbox_streams') IS NULL THEN '' "
    "WHEN to_regclass('sagas') IS NULL THEN '0001' "
    "WHEN NOT EXISTS (SELECT FROM pg_attribute "
    "WHERE attrelid = to_regclass('outbox_streams') AND attname = 'waits_for') THEN '0002' "
    "ELSE '0003' END"
)


def adopt(connection: Connection) -> set[str]:
    """Record the revision of tables that an earlier release made. Returns what is recorded then."""
    with connection.begin():
        context = _context(connection)
        recorded, found = set(context.get_current_heads()), connection.scalar(FOUND)
        if found and max(recorded, default="") < found:
            context.stamp(OWN.scripts(), found)
        return set(context.get_current_heads())


def upgrade(connection: Connection) -> None:
    """Bring the tables to this release, each revision in a transaction of its own. Leaves those of a newer release."""
    recorded = adopt(connection)
    if OWN.is_behind(recorded):
        scripts = OWN.scripts()
        for script in reversed(list(scripts.iterate_revisions("heads", tuple(recorded)))):
            _apply(connection, scripts, script)


def _apply(connection: Connection, scripts: ScriptDirectory, script: Script) -> None:
    context = _context(connection)
    with context.begin_transaction(), Operations.context(context):
        script.module.upgrade()
        context.stamp(scripts, script.revision)


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": OWN.version_table})
