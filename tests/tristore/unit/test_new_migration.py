"""`make migration`: what it writes, what it says, and that it leaves nothing behind."""

import os
from pathlib import Path

import asyncpg
import pytest
from alembic.util import CommandError
from anyio import to_thread

from tristore.errors import StoreUnavailable
from tristore.migrations.history import OWN, History
from tristore.migrations.new import write_migration
from tristore.settings import TristoreSettings
from tristore.testing.stores import Servers, settings_on

CONFIG = """
[tool.alembic]
script_location = "%(here)s"
file_template = "%%(rev)s_%%(slug)s"
"""
ENVIRONMENT = """
import sqlalchemy as sa
from tristore.migrations.environment import run_product

metadata = sa.MetaData()
{tables}
run_product(metadata, None)
"""
NOTES = "sa.Table('notes', metadata, sa.Column('id', sa.Integer, primary_key=True){columns})"


@pytest.fixture
def product(tmp_path: Path) -> History:
    (tmp_path / "versions").mkdir()
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    (tmp_path / "script.py.mako").write_text((OWN.file.parent / "postgres/script.py.mako").read_text())
    return History(tmp_path / "pyproject.toml")


@pytest.fixture
def settings(servers: Servers) -> TristoreSettings:
    return settings_on(servers, TristoreSettings)


async def databases(settings: TristoreSettings) -> list[str]:
    """Those that this process has made and not dropped."""
    connection = await asyncpg.connect(settings.dsn("postgres_dsn").replace("+asyncpg", ""))
    names = await connection.fetch(
        "SELECT datname FROM pg_database WHERE datname LIKE $1", f"migration_{os.getpid()}_%"
    )
    await connection.close()
    return [row["datname"] for row in names]


def with_tables(product: History, tables: str) -> None:
    product.file.with_name("env.py").write_text(ENVIRONMENT.format(tables=tables))


async def test_each_change_of_the_models_becomes_the_next_number(
    product: History, settings: TristoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    async def written(name: str) -> tuple[list[str], str]:
        await to_thread.run_sync(write_migration, settings, product, name)
        return sorted(path.name for path in (product.file.parent / "versions").glob("*.py")), capsys.readouterr().out

    with_tables(product, NOTES.format(columns=""))
    files, said = await written("add notes")
    assert files == ["0001_add_notes.py"]
    assert said.splitlines()[1:-1] == ["  - makes the table notes"]  # and drops none of the machinery's

    with_tables(product, NOTES.format(columns=", sa.Column('text', sa.String, index=True)"))
    files, said = await written("text of notes")
    assert files[1:] == ["0002_text_of_notes.py"]
    assert said.splitlines()[1:-1] == ["  - adds the column notes.text", "  - makes the index ix_notes_text"]

    files, said = await written("again")
    assert len(files) == 2
    assert said.startswith("There is nothing to do")

    with_tables(product, "")
    files, said = await written("drop notes")
    assert "  - DROPS the table notes" in said.splitlines()
    phases = [script.module.phase for script in product.scripts().walk_revisions()]
    assert phases == ["contract", "expand", "expand"]

    assert await databases(settings) == []


async def test_a_migration_that_fails_leaves_no_database_and_no_file(
    product: History, settings: TristoreSettings
) -> None:
    with_tables(product, "")
    versions = product.file.parent / "versions"
    for head in ("0001", "0002"):
        (versions / f"{head}.py").write_text(f"revision, down_revision = '{head}', None\n")
    with pytest.raises(CommandError, match="Multiple head revisions"):
        await to_thread.run_sync(write_migration, settings, product, "x")
    assert await databases(settings) == []
    assert len(list(versions.glob("*.py"))) == 2


async def test_a_server_that_is_not_there_is_unavailable(product: History) -> None:
    settings = TristoreSettings(_env_file=None, environment="test", postgres_dsn="postgresql+asyncpg://a@127.0.0.1:1/a")
    with pytest.raises(StoreUnavailable):
        await to_thread.run_sync(write_migration, settings, product, "x")
