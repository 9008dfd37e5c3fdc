"""Migrations of a test's own."""

from collections.abc import Mapping
from pathlib import Path

from tristore.migrations.history import History

ENVIRONMENT = """
from sqlalchemy import MetaData
from tristore.migrations.environment import run_product
run_product(MetaData(), None)
"""
TEXT = '''"""Of a test."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {last!r}
branch_labels = None
depends_on = None
{declared}


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''


def revision(number: str, upgrade: str, phase: str = "expand", last: str | None = None, downgrade: str = "pass") -> str:
    """The text of one that comes after `last`."""
    bodies = {name: text.replace("\n", "\n    ") for name, text in (("upgrade", upgrade), ("downgrade", downgrade))}
    declared = f'phase = "{phase}"' if phase else ""
    return TEXT.format(number=number, last=last, declared=declared, **bodies)


def history_in(folder: Path, revisions: Mapping[str, str], excused: str = "") -> History:
    """Of these texts, by the names of their files. `excused`: their squawk.toml."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "%(here)s/postgres"\n')
    (folder / "postgres" / "versions").mkdir(parents=True)
    (folder / "postgres" / "env.py").write_text(ENVIRONMENT)
    (folder / "postgres" / "squawk.toml").write_text(excused)
    for name, text in revisions.items():
        (folder / "postgres" / "versions" / name).write_text(text)
    return History(folder / "pyproject.toml")
