"""A MariaDB for the run, and a database of its own for each test."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from examples.mysql_points.mysql import MySQL
from tests.product.examples.mariadb import MariaDB
from tests.product.examples.points import APP, Shop, administrator, opened, settings_on
from tests.under_test import Lab, fresh_databases
from tristore.stores.stores import open_stores


@pytest.fixture(scope="session")
def mariadb(run_folder: Path, worker_id: str) -> Iterator[MariaDB]:
    server = MariaDB(run_folder / f"mysql-{worker_id}")
    server.install()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def database(mariadb: MariaDB) -> str:
    """The name of a database of the test's own, with its table."""
    name = f"points_{secrets.token_hex(4)}"
    async with administrator(mariadb) as mysql, mysql.operation() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    async with opened(settings_on(mariadb, name)) as mysql:
        await mysql.create_tables()
    return name


@pytest.fixture
async def mysql(mariadb: MariaDB, database: str) -> AsyncIterator[MySQL]:
    async with opened(settings_on(mariadb, database)) as mysql:
        yield mysql


@pytest.fixture
async def shop(lab: Lab, mariadb: MariaDB, database: str, mysql: MySQL) -> AsyncIterator[Shop]:
    async with fresh_databases(lab.servers) as settings, open_stores(settings) as stores:
        yield Shop(replace(lab.on(settings), app_path=APP), mariadb, stores, mysql, database)
