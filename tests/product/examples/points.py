"""The application with points in MySQL, on MariaDB and the lab's stores, and what tests look at them through."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text

from examples.mysql_points.mysql import MySQL, open_mysql
from examples.mysql_points.settings import PointsSettings
from tests.product.examples.mariadb import MariaDB
from tests.under_test import Lab
from tristore.stores.stores import Stores
from tristore.testing.lab import App

APP = "examples.mysql_points.app:app"


def settings_on(mariadb: MariaDB, database: str = "points", **values: Any) -> PointsSettings:
    defaults: dict[str, Any] = {
        "mysql_dsn": SecretStr(mariadb.dsn(database)),
        "mysql_timeout": 5,
        "environment": "test",
    }
    return PointsSettings(_env_file=None, **defaults | values)


@asynccontextmanager
async def opened(settings: PointsSettings) -> AsyncIterator[MySQL]:
    mysql = open_mysql(settings)
    try:
        yield mysql
    finally:
        await mysql.close()


@asynccontextmanager
async def administrator(mariadb: MariaDB) -> AsyncIterator[MySQL]:
    """Who may change what the server is set to."""
    dsn = SecretStr(mariadb.dsn("mysql", user="administrator"))
    async with opened(settings_on(mariadb, mysql_dsn=dsn)) as mysql:
        yield mysql


async def status(mariadb: MariaDB, name: str) -> int:
    """One of the numbers that the server counts."""
    async with administrator(mariadb) as mysql, mysql.operation() as connection:
        return int((await connection.execute(text("SHOW GLOBAL STATUS LIKE :name"), {"name": name})).one()[1])


@dataclass(frozen=True)
class Shop:
    """The lab's stores with databases of their own, a database in MySQL, and what tests look at them through."""

    lab: Lab
    mariadb: MariaDB
    stores: Stores
    mysql: MySQL
    database: str

    @asynccontextmanager
    async def app(self, **more: str) -> AsyncIterator[App]:
        async with self.lab.app(**{"MYSQL_DSN": self.mariadb.dsn(self.database), **more}) as app:
            yield app

    def product(self) -> AbstractAsyncContextManager[App]:
        """The product as it is without the example, on the same databases."""
        return replace(self.lab, app_path="main:app").app()
