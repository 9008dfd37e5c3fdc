"""How far a database has come: in the machinery's migrations and in the product's."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tristore.stores.postgres import translate_errors


@dataclass(frozen=True)
class History:
    """A chain of Alembic's revisions, and the table where a database records the last one that it has."""

    file: Path
    """Alembic's configuration: an .ini file, or a pyproject.toml."""
    version_table: str = "alembic_version"

    def config(self, dsn: str | None = None) -> Config:
        """For Alembic's commands. `dsn`: of the database; None: the one that the settings name."""
        is_toml = self.file.suffix == ".toml"
        config = Config(toml_file=self.file) if is_toml else Config(self.file)
        config.attributes["dsn"] = dsn
        return config

    def scripts(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(self.config())

    @cached_property
    def _older(self) -> frozenset[str]:
        scripts = self.scripts()
        return frozenset(script.revision for script in scripts.walk_revisions()) - set(scripts.get_heads())

    def is_behind(self, recorded: Set[str]) -> bool:
        """Whether a database that records this lacks a revision. One that this release does not know is a newer one."""
        return not recorded or bool(recorded & self._older)


OWN = History(Path(__file__).with_name("alembic.ini"), "tristore_version")
"""Of the machinery's own tables."""


async def is_current(engine: AsyncEngine, product: History) -> bool:
    """Whether the machinery's tables and the product's are at this release's revisions or beyond. Raises
    StoreUnavailable."""
    with translate_errors():
        async with engine.connect() as connection:
            for history in (OWN, product):
                if history.is_behind(await _recorded(connection, history.version_table)):
                    return False
    return True


async def _recorded(connection: AsyncConnection, table: str) -> set[str]:
    if not await connection.scalar(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table}):
        return set()
    return set(await connection.scalars(text(f"SELECT version_num FROM {table}")))  # noqa: S608 - a name of our own
