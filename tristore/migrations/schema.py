"""Whether PostgreSQL's schema is the one that this release was written for."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tristore.stores.postgres import translate_errors

PROJECT = Path(__file__).parents[2]


def alembic_config() -> Config:
    return Config(toml_file=PROJECT / "pyproject.toml")


@cache
def _older_revisions() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(alembic_config())
    return frozenset(script.revision for script in scripts.walk_revisions()) - set(scripts.get_heads())


async def is_current(engine: AsyncEngine) -> bool:
    """True at this release's revision or beyond: one that this release does not know is of a newer one. Raises
    StoreUnavailable."""
    with translate_errors():
        async with engine.connect() as connection:
            if not await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
                return False
            revisions = set(await connection.scalars(text("SELECT version_num FROM alembic_version")))
    return bool(revisions) and not revisions & _older_revisions()
