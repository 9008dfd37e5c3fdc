"""Versioned scripts for MongoDB, applied in the order of their names, each recorded in a ledger."""

import importlib
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from tristore.migrations.failures import in_one_line
from tristore.models import now
from tristore.stores.mongodb import LEDGER, script_names, translate_errors


async def upgrade(database: AsyncDatabase[dict[str, Any]]) -> list[str]:
    """Apply what is missing and return its names. A script may run again after a crash in its middle, so each is
    idempotent; the caller holds the migration lock. Raises StoreUnavailable and MigrationFailed."""
    with translate_errors():
        return [name for name in script_names() if await _apply(database, name)]


async def _apply(database: AsyncDatabase[dict[str, Any]], name: str) -> bool:
    if await database[LEDGER].find_one({"_id": name}):
        return False
    script = importlib.import_module(f"migrations.mongodb.{name}")
    with in_one_line(f"MongoDB, {name}"):
        await script.up(database)
    await database[LEDGER].insert_one({"_id": name, "applied_at": now()})
    return True
