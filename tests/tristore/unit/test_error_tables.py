"""Every code of every server, and every error of every driver, is a decision."""

import inspect
from types import ModuleType
from typing import Any

import asyncpg.exceptions
import pymongo.errors
import pytest
import redis.exceptions
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    NotPrimaryError,
    OperationFailure,
    WriteConcernError,
)
from redis.asyncio.connection import DefaultParser
from sqlalchemy import exc as sa
from structlog.testing import capture_logs

from tristore.errors import StoreUnavailable
from tristore.stores import mongodb_errors as mongodb
from tristore.stores import postgres_errors as postgres
from tristore.stores import redis_errors as redis_store
from tristore.stores.translation import Verdict

# The classes of appendix A of PostgreSQL 18's manual.
SQLSTATE_CLASSES = (
    "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 53 54 "
    "55 57 58 F0 HV P0 XX"
).split()
# Words with which error replies of Redis 8 begin (its sources), and those that are no more than a bug of ours, or that
# only commands get which we do not send.
REDIS_WORDS = set(
    "ASK BUSY BUSYGROUP BUSYKEY CLUSTERDOWN CROSSSLOT DENIED ERR EXECABORT INPROG INVALIDOBJ IOERR LOADING "
    "MASTERDOWN MISCONF MOVED NOAUTH NOGOODSLAVE NOGROUP NOMASTERLINK NOPERM NOPROTO NOQUORUM NOREPLICAS NOSCRIPT "
    "NOTBUSY OOM READONLY TRYAGAIN UNBLOCKED UNKILLABLE WRONGPASS WRONGTYPE".split()
)
REDIS_OURS = set("ERR EXECABORT WRONGTYPE".split())
REDIS_UNHEARD = set(
    "BUSYGROUP BUSYKEY INPROG INVALIDOBJ IOERR NOGOODSLAVE NOGROUP NOMASTERLINK NOQUORUM NOTBUSY UNBLOCKED "
    "UNKILLABLE".split()
)
# Raised before any store is asked, or only by clients that we do not use.
REDIS_KNOWN = {"ChildDeadlockedError", "RedisClusterException", "IncorrectPolicyType"}


def numbers(ranges: str) -> set[int]:
    ends = [(one.partition("-")[0], one.partition("-")[2] or one) for one in ranges.split()]
    return {number for first, last in ends for number in range(int(first), int(last) + 1)}


# All of MongoDB's error_codes.yml, and 8000 (Atlas), 11001 and 12582 (older servers' duplicates).
MONGODB_CODES = numbers(
    "0-43 45-98 100-130 132-195 197-252 256-303 306-319 322-324 326 330-334 336-352 354-363 365-367 369-393 "
    "395-396 398 400-436 440 442-462 8000 9001 9996 10003 10058 10107 10334 11000-11001 11600-11602 12582 "
    "12586-12587 13104 13113 13297 13388 13435-13436 14031 17280 28769 31082 40413-40415 46841 50768 50915 56846 "
    "57986 91331 640570-640571 1003141 4662500 4938500 9737301 9751901-9751903 10045600 10171600"
)
# Of members among themselves, of administration, sharding, transactions, change streams and stream processors.
MONGODB_UNHEARD = numbers(
    "0 23 25 31-36 41 45 49 58 60 62 69 77-78 82-83 87-88 90 92-93 95 98 102-106 108-110 113-114 118-120 122 "
    "124-130 132 135 137-138 144 147 152 154-157 161-164 176-180 183-186 191-194 198 200 203-205 209-213 216-222 "
    "228 234 236 243-245 247-248 252 256 258-260 265-268 270 274-278 280-284 286-289 293-300 302 306-313 315-319 "
    "326 330-333 336-342 344-346 348 350-351 356 358 360 362 366-367 369-370 372-376 379-385 387 389-390 392-393 "
    "396 400-401 403 405-406 408-410 413-432 434-436 440 442-448 451-452 454-461 13104 28769 640570-640571 "
    "1003141 4662500 4938500 9737301 9751901-9751903 10171600"
)


def errors_of(module: ModuleType) -> list[type[Exception]]:
    found = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if issubclass(cls, Exception)]
    return [cls for cls in found if cls.__module__.split(".")[0] == module.__name__.split(".")[0]]


def said_by_postgresql(state: str) -> BaseException:
    return asyncpg.PostgresError.new({"C": state, "M": "with a value"})


def said_by_redis(reply: str) -> Exception:
    parser: Any = DefaultParser  # untyped
    error: Exception = parser.parse_error(reply)
    return error


def said_by_mongodb(code: int, **details: Any) -> OperationFailure:
    return OperationFailure("with a value", code, {"code": code, **details})


def test_every_sqlstate_is_a_decision() -> None:
    states = {str(getattr(cls, "sqlstate", None) or "") for cls in errors_of(asyncpg.exceptions)} - {""}
    assert "25006" in states
    for state in states | {f"{cls}999" for cls in SQLSTATE_CLASSES}:
        assert postgres.reason_of(said_by_postgresql(state)) != "unknown", state


@pytest.mark.parametrize(
    ("state", "reason"),
    {
        "08006": "unreachable",
        "0A000": None,
        "23505": None,
        "25006": "read only",
        "25P02": None,
        "25P03": "timeout",
        "25P04": "timeout",
        "28P01": "unreachable",
        "40001": "busy",
        "42501": "not permitted",
        "42601": None,
        "42703": "not migrated",
        "42P01": "not migrated",
        "53100": "refuses writes",
        "53300": "busy",
        "55000": "unreachable",
        "55P02": None,
        "55P03": "busy",
        "57014": "timeout",
        "57P03": "unreachable",
        "58030": "refuses writes",
        "XX001": "refuses writes",
        "ZZ123": "unknown",
    }.items(),
)
def test_a_sqlstate_decides_by_itself_before_its_class_does(state: str, reason: Verdict) -> None:
    error = said_by_postgresql(state)
    assert postgres.reason_of(error) == reason
    assert postgres.cause_of(error) == state


def test_a_statement_prepared_before_a_migration_is_to_be_asked_again() -> None:
    fields = {"C": "0A000", "M": "", "R": "RevalidateCachedQuery"}
    assert postgres.reason_of(asyncpg.PostgresError.new(fields)) == "busy"
    assert postgres.reason_of(asyncpg.OutdatedSchemaCacheError("")) == "busy"


def test_a_statements_own_fault_on_a_connection_that_is_gone_is_no_fault_of_its_own() -> None:
    lost = sa.DBAPIError("SELECT 1", None, RuntimeError(), connection_invalidated=True)
    assert postgres.reason_of(lost) == "unreachable"


def test_every_client_error_of_asyncpg_is_known() -> None:
    client_side = [
        cls for cls in errors_of(asyncpg.exceptions) if not issubclass(cls, (asyncpg.PostgresError, Warning))
    ]
    assert client_side
    for cls in client_side:
        assert any(base in postgres.CLIENT_REASONS for base in cls.__mro__), cls


def test_every_word_of_redis_is_a_decision() -> None:
    assert set(redis_store.CODES) | REDIS_OURS | REDIS_UNHEARD == REDIS_WORDS
    for word in REDIS_WORDS:
        error = said_by_redis(f"{word} 7 host:6379")
        assert redis_store.reason_of(error) == redis_store.CODES.get(word, "unknown")
        assert redis_store.cause_of(error) == word


@pytest.mark.parametrize(
    ("reply", "reason", "cause"),
    [
        (
            "NOREPLICAS Not enough good replicas to write. script: 7bde, on @user_script:1.",
            "refuses writes",
            "NOREPLICAS",
        ),
        ("READONLY You can't write against a read only replica. script: 7bde", "read only", "READONLY"),
        ("ERR ACL failure in script: User u has no permissions to run the 'set' command", "not permitted", "NOPERM"),
        ("ERR max number of clients reached", "unreachable", "ERR"),
        ("BUSY Redis is busy running a script.", "timeout", "BUSY"),
        ("Secret # 1 of pipeline", "unknown", "ResponseError"),
        ("", "unknown", "ResponseError"),
    ],
)
def test_what_redis_says_at_length_is_known_by_its_first_word(reply: str, reason: str, cause: str) -> None:
    error = said_by_redis(reply)
    assert (redis_store.reason_of(error), redis_store.cause_of(error)) == (reason, cause)


def test_every_error_of_redis_is_known() -> None:
    for cls in errors_of(redis.exceptions):
        if not any(base.__name__ in REDIS_KNOWN for base in cls.__mro__):
            assert any(base in redis_store.REASONS for base in cls.__mro__), cls


def test_every_code_of_mongodb_is_a_decision() -> None:
    assert set(map(int, mongodb.CODES)) | MONGODB_UNHEARD == MONGODB_CODES
    for code in MONGODB_CODES:
        decided = mongodb.CODES.get(str(code), "unknown")
        assert mongodb.reason_of(said_by_mongodb(code)) == decided
        assert mongodb.reason_of(BulkWriteError({"writeErrors": [{"code": code}]})) == decided


@pytest.mark.parametrize(
    ("error", "reason", "cause"),
    [
        (said_by_mongodb(14031, codeName="OutOfDiskSpace", errmsg="a value"), "refuses writes", "14031 OutOfDiskSpace"),
        (said_by_mongodb(8000, codeName="AtlasError"), "refuses writes", "8000 AtlasError"),
        (said_by_mongodb(13), "not permitted", "13"),
        (said_by_mongodb(112), "busy", "112"),
        (said_by_mongodb(121), None, "121"),
        (said_by_mongodb(51091, errorLabels=["RetryableWriteError"]), "busy", "51091"),
        (said_by_mongodb(51091), "unknown", "51091"),
        (OperationFailure("the driver's own"), None, "OperationFailure"),
        (WriteConcernError("", 64, {"code": 64}), "timeout", "64"),
        (
            NotPrimaryError("", {"code": 10107, "codeName": "NotWritablePrimary"}),
            "unreachable",
            "10107 NotWritablePrimary",
        ),
        (AutoReconnect("a host"), "unreachable", "AutoReconnect"),
        (ConfigurationError("a name that DNS does not know"), "unreachable", "ConfigurationError"),
        (BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 14031}]}), "refuses writes", "14031"),
        (BulkWriteError({"writeErrors": [{"code": 11000}], "writeConcernErrors": [{"code": 64}]}), "timeout", "64"),
        (BulkWriteError({"writeErrors": [{"code": 11000}], "writeConcernErrors": []}), None, "11000"),
    ],
)
def test_what_mongodb_says_is_known_by_its_code(error: Exception, reason: Verdict, cause: str) -> None:
    assert (mongodb.reason_of(error), mongodb.cause_of(error)) == (reason, cause)


def test_every_error_of_pymongo_is_known() -> None:
    for cls in errors_of(pymongo.errors):
        assert any(base in mongodb.REASONS for base in cls.__mro__), cls


@pytest.mark.parametrize("store", [postgres, redis_store, mongodb])
def test_network_errors_and_bugs_are_told_apart(store: Any) -> None:
    assert store.reason_of(ConnectionRefusedError()) == "unreachable"
    assert store.reason_of(TimeoutError()) == "timeout"
    assert store.reason_of(KeyError()) is None
    assert store.cause_of(ConnectionRefusedError("a host")) == "ConnectionRefusedError"


def test_a_dying_postgresql_that_says_so_on_an_idle_connection_is_unreachable() -> None:
    # What asyncpg makes of the next statement there, between that message and the end of the connection.
    assert postgres.reason_of(asyncpg.InternalClientError("cannot switch to state 12")) == "unreachable"


@pytest.mark.parametrize(
    ("store", "error", "cause"),
    [
        (postgres, said_by_postgresql("ZZ001"), "ZZ001"),
        (redis_store, said_by_redis("NOVEL a value"), "NOVEL"),
        (mongodb, said_by_mongodb(51092), "51092"),
    ],
)
def test_an_unknown_refusal_means_unavailable_and_is_logged_once(store: Any, error: Exception, cause: str) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught, store.translate_errors():
                raise error
            assert (caught.value.reason, caught.value.cause) == ("refuses writes", cause)
    assert [(entry["event"], entry["cause"]) for entry in logs] == [("unknown_refusal", cause)]


@pytest.mark.parametrize(
    ("store", "error"), [(redis_store, said_by_redis("WRONGTYPE")), (mongodb, said_by_mongodb(51093))]
)
def test_where_bugs_are_to_be_seen_an_unknown_refusal_passes(store: Any, error: Exception) -> None:
    with pytest.raises(type(error)), store.translate_errors(raise_unknown=True):
        raise error
