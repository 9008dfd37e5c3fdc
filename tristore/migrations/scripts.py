"""Versioned scripts for MongoDB. They run in the order of their names, and a ledger records each."""

import pkgutil
from dataclasses import dataclass
from importlib import import_module

from pymongo.asynchronous.database import AsyncDatabase

from tristore.migrations.failures import in_one_line
from tristore.models import now
from tristore.stores.mongodb import Document, translate_errors


@dataclass(frozen=True)
class Scripts:
    """A package of scripts, such as `m0001_initial`, and the collection that records them. The machinery has none."""

    package: str
    ledger: str

    def names(self) -> list[str]:
        """In their order."""
        modules = pkgutil.iter_modules(import_module(self.package).__path__)
        return sorted(module.name for module in modules if module.name.startswith("m"))

    def newest(self) -> dict[str, str]:
        """What `MongoStore` looks for before it serves: the ledger, and the script that it must record."""
        names = self.names()
        return {self.ledger: names[-1]} if names else {}

    async def upgrade(self, database: AsyncDatabase[Document]) -> list[str]:
        """Run the scripts that are missing, and return their names. The caller holds the migration lock. A script runs
        again after a crash in its middle, so each is idempotent. Raises StoreUnavailable and MigrationFailed."""
        with translate_errors():
            return [name for name in self.names() if await self._apply(database, name)]

    async def _apply(self, database: AsyncDatabase[Document], name: str) -> bool:
        if await database[self.ledger].find_one({"_id": name}):
            return False
        script = import_module(f"{self.package}.{name}")
        with in_one_line(f"MongoDB, {name}"):
            await script.up(database)
        await database[self.ledger].insert_one({"_id": name, "applied_at": now()})
        return True
