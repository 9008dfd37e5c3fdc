"""What the errors of PostgreSQL's drivers mean: asyncpg's and SQLAlchemy's."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import asyncpg
from sqlalchemy import exc as sa
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from tristore.errors import AlreadyTaken, Reason
from tristore.stores.translation import Verdict, by_code, translating

# SQLSTATE (PostgreSQL manual, appendix A) -> why the server could not serve us: all of it, else its first two
# characters. None: the statement's own fault. What is not here is unknown.
SQLSTATES: dict[str, Reason | None] = by_code(
    {
        # The server is down, going down or coming up, cannot be connected to (08, 55000), or the DSN is wrong (28, 3D).
        "unreachable": "08 28 3D 55000 57",
        # By statement_timeout, idle_in_transaction_session_timeout, transaction_timeout: nothing was committed.
        "timeout": "57014 25P03 25P04",
        # Serialization failure, deadlock, lock_timeout, out of memory or connections, snapshot too old.
        "busy": "40 53 55 72",
        "read only": "25006",
        # The disk is full, the server's own files or data are broken, or it cannot read its configuration.
        "refuses writes": "53100 58 F0 XX",
        "not permitted": "42501",
        "not migrated": "42P01 42703",
        # 25P02 as well: whoever goes on after a failed statement is wrong.
        None: "00 01 02 03 09 0A 0B 0F 0L 0M 0N 0P 0S 0T 0U 0V 0W 0X 0Y 0Z 10 20 21 22 23 24 25 26 27 2B 2C 2D 2E 2F "
        "34 36 38 39 3B 3C 3F 42 44 45 46 54 55P02 55P04 HV P0",
    }
)
CLIENT_REASONS: dict[type[BaseException], Reason | None] = {
    sa.TimeoutError: "busy",  # no pooled connection became free
    TimeoutError: "timeout",
    OSError: "unreachable",  # refused, reset, no such host
    asyncpg.exceptions.TargetServerAttributeNotMatched: "read only",  # of all hosts that answer
    asyncpg.InterfaceError: "unreachable",  # the connection was closed underneath
    asyncpg.exceptions.DataError: None,  # an argument of the wrong type: our own fault
    asyncpg.InvalidCachedStatementError: "busy",  # a migration has just run; asked again, it is prepared anew
    asyncpg.OutdatedSchemaCacheError: "busy",
    asyncpg.InternalClientError: "unreachable",  # a server that is being killed has just said so: no statement is taken
}


def translate_errors() -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("postgresql", reason_of, cause_of)


def reason_of(error: BaseException) -> Verdict:
    """Why PostgreSQL was not available, or None when the error is not about that."""
    reason = _reason_of(_original(error))
    if reason is None and isinstance(error, sa.DBAPIError) and error.connection_invalidated:
        return "unreachable"
    return reason


def _reason_of(error: BaseException) -> Verdict:
    for cls in type(error).__mro__:
        if cls in CLIENT_REASONS:
            return CLIENT_REASONS[cls]
    if not isinstance(error, asyncpg.PostgresError):
        return None
    state = error.sqlstate or ""
    return SQLSTATES[state] if state in SQLSTATES else SQLSTATES.get(state[:2], "unknown")


def cause_of(error: BaseException) -> str:
    """What operators are told: the SQLSTATE, else the name of the driver's error."""
    original = _original(error)
    return str(getattr(original, "sqlstate", None) or type(original).__name__)


def _original(error: BaseException) -> BaseException:
    if isinstance(error, sa.DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error):  # also by itself, when the pool cannot connect
        error = error.__cause__ or error
    return error


@contextmanager
def naming_what_is_taken(fields: Mapping[str, str]) -> Iterator[None]:
    """A block in which the breach of one of these unique constraints becomes AlreadyTaken. `fields`: the field that
    each of them is about."""
    try:
        yield
    except sa.IntegrityError as error:
        field = fields.get(getattr(_original(error), "constraint_name", None) or "")
        if field is None:
            raise
        raise AlreadyTaken(field) from None
