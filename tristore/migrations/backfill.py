"""Fill a column of a table beside a service that works: by key, some rows at a time, so that no lock lasts long."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from tristore.migrations.failures import sqlstate
from tristore.migrations.lock import migration_engine, unlimited
from tristore.migrations.patience import LOCKED

LOCK_TIMEOUT, STATEMENT_TIMEOUT = text("SET lock_timeout = '1s'"), text("SET statement_timeout = '30s'")
TRIES = 20
"""Of a batch whose rows others hold."""
NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

# Rows are locked in the order of their keys, so that two of these cannot wait for each other.
BATCH = """
WITH batch AS (
  SELECT {key} AS its_key FROM {table} {after} ORDER BY {key} LIMIT $1
), locked AS MATERIALIZED (
  SELECT {key} AS its_key FROM {table} WHERE {key} IN (SELECT its_key FROM batch) AND {wrong}
  ORDER BY {key} FOR NO KEY UPDATE
), changed AS (
  UPDATE {table} SET {column} = ({expression}) FROM locked WHERE {table}.{key} = locked.its_key RETURNING 1
)
SELECT (SELECT count(*) FROM batch) AS looked_at, (SELECT count(*) FROM changed) AS changed,
       (SELECT its_key FROM batch ORDER BY its_key DESC LIMIT 1) AS last
"""
COMPARED = """
SELECT count(*) AS number, count(*) FILTER (WHERE {wrong}) AS differ,
       coalesce(bit_xor(hashtextextended(concat_ws('|', {key}, ({expression})), 0)), 0) AS expected,
       coalesce(bit_xor(hashtextextended(concat_ws('|', {key}, {column}), 0)), 0) AS found
FROM {table}
"""


@dataclass(frozen=True)
class Compared:
    number: int
    """Rows."""
    differ: int
    expected: int
    """A checksum over the keys and what the column should have."""
    found: int
    """The same over what it has."""

    @property
    def agree(self) -> bool:
        return self.differ == 0 and self.expected == self.found


@dataclass(frozen=True)
class Backfill:
    table: str
    column: str
    expression: str
    """SQL over the row: what the column must be. It goes into statements as it stands, so it is a developer's."""
    key: str = "id"

    def __post_init__(self) -> None:
        for name in (self.table, self.column, self.key):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a table or column: lower-case letters, digits and _ only")

    async def run(self, dsn: str, tell: Callable[[str], object], limit: int = 1000) -> int:
        """Batch after batch until the last row. Returns how many rows it changed. It may be run again: what is right
        already is not written. Raises DBAPIError."""
        looked_at, changed = 0, 0
        last: object = None
        async with unlimited(migration_engine(dsn), autocommit=True) as connection:
            for limits in (LOCK_TIMEOUT, STATEMENT_TIMEOUT):
                await connection.execute(limits)
            while True:
                started = time.monotonic()
                row = await self._batch(connection, last, limit)
                looked_at, changed = looked_at + int(row.looked_at), changed + int(row.changed)
                tell(f"{self.table}: {looked_at} rows looked at, {changed} changed")
                if row.looked_at < limit:
                    return changed
                last = row.last
                await asyncio.sleep(time.monotonic() - started)  # half of the time is the service's

    async def _batch(self, connection: AsyncConnection, last: object, limit: int) -> Any:
        statement = self._filled(BATCH, "" if last is None else f"WHERE {self.key} > $2")
        parameters = (limit,) if last is None else (limit, last)
        for turn in range(TRIES):
            try:
                return (await connection.exec_driver_sql(statement, parameters)).one()
            except DBAPIError as error:
                if sqlstate(error) not in LOCKED or turn == TRIES - 1:
                    raise
            await asyncio.sleep(1)
        raise AssertionError

    async def compare(self, dsn: str) -> Compared:
        """Counts and checksums of all rows, in one snapshot. It blocks nobody, and takes as long as reading the table
        does. Raises DBAPIError."""
        async with unlimited(migration_engine(dsn), autocommit=True) as connection:
            return Compared(**(await connection.exec_driver_sql(self._filled(COMPARED))).one()._mapping)

    def _filled(self, statement: str, after: str = "") -> str:
        return statement.format(**vars(self), after=after, wrong=f"{self.column} IS DISTINCT FROM ({self.expression})")
