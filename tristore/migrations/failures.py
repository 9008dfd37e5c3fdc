"""Migrations that fail because of the data or the database: one line for the operator, without values."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from pymongo.errors import OperationFailure
from sqlalchemy.exc import DBAPIError


class MigrationFailed(CommandError):
    """One line for the operator. Alembic's own command line shows it without a traceback too."""


# SQLSTATE or MongoDB's code -> what to do
CURES: dict[object, str] = {
    "42501": "The DSN's user lacks a right: it must own the tables, and have CREATE on their schema.",
    "23505": "Rows have the same values under a unique index. Make them differ, then migrate again.",
    13: "The DSN's user lacks a right: it must have the role readWrite on the database.",
    11000: "Documents have the same values under a unique index. Make them differ, then migrate again.",
    85: "An index exists with other options. Drop it, then migrate again.",
    86: "An index of the same name exists with other keys or options. Drop it, then migrate again.",
}


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turns errors that have a cure into MigrationFailed, and lets all others pass."""
    try:
        yield
    except DBAPIError as error:
        _fail(what, sqlstate(error), [getattr(_driver_error(error), name, None) for name in PLACES])
        raise
    except OperationFailure as error:
        _fail(what, error.code, list((error.details or {}).get("keyPattern", {})))
        raise


PLACES = ("schema_name", "table_name", "constraint_name")  # never `detail`: it has the values


def sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _driver_error(error: DBAPIError) -> object:
    return getattr(error.orig, "__cause__", None)


def _fail(what: str, code: object, places: list[str | None]) -> None:
    if code in CURES:
        where = ", ".join(filter(None, places))
        raise MigrationFailed(f"{what} ({code}{': ' * bool(where)}{where}). {CURES[code]}") from None
