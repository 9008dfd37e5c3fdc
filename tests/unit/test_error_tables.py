"""Every error of every driver is either translated or, knowingly, not."""

import inspect
from types import ModuleType

import asyncpg.exceptions
import pymongo.errors
import pytest
import redis.exceptions

from database import mongodb, postgres
from database import redis as redis_store

# SQLSTATE classes that blame the statement, or say nothing bad: those errors pass untranslated.
NOT_AVAILABILITY = set(
    "00 01 02 03 09 0A 0B 0F 0L 0M 0N 0P 0S 0T 0U 0V 0W 0X 0Y 0Z 10 20 21 22 23 24 25 26 27 2B 2C 2D 2E 2F 34 36 38 39 "
    "3B 3C 3F 42 44 45 46 54 72 F0 HV P0 XX".split()
)
# Raised before any store is asked, or only by clients that we do not use.
REDIS_KNOWN = {"ChildDeadlockedError", "RedisClusterException", "IncorrectPolicyType"}


def errors_of(module: ModuleType) -> list[type[Exception]]:
    found = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if issubclass(cls, Exception)]
    return [cls for cls in found if cls.__module__.split(".")[0] == module.__name__.split(".")[0]]


def test_every_sqlstate_class_of_the_driver_is_known() -> None:
    classes = {str(getattr(cls, "sqlstate", None) or "")[:2] for cls in errors_of(asyncpg.exceptions)} - {""}
    unknown = classes - set(postgres.SQLSTATE_REASONS) - NOT_AVAILABILITY
    assert not unknown


def test_every_client_error_of_asyncpg_is_known() -> None:
    client_side = [
        cls for cls in errors_of(asyncpg.exceptions) if not issubclass(cls, (asyncpg.PostgresError, Warning))
    ]
    assert client_side
    for cls in client_side:
        assert any(base in postgres.CLIENT_REASONS for base in cls.__mro__), cls


def test_every_error_of_redis_is_known() -> None:
    for cls in errors_of(redis.exceptions):
        if not any(base.__name__ in REDIS_KNOWN for base in cls.__mro__):
            assert any(base in redis_store.REASONS for base in cls.__mro__), cls


def test_every_error_of_pymongo_is_known() -> None:
    for cls in errors_of(pymongo.errors):
        assert any(base in mongodb.REASONS for base in cls.__mro__), cls


@pytest.mark.parametrize("reason_of", [postgres.reason_of, redis_store.reason_of, mongodb.reason_of])
def test_network_errors_and_bugs_are_told_apart(reason_of: object) -> None:
    assert callable(reason_of)
    assert reason_of(ConnectionRefusedError()) == "unreachable"
    assert reason_of(TimeoutError()) == "timeout"
    assert reason_of(KeyError()) is None


def test_a_dying_postgresql_that_says_so_on_an_idle_connection_is_unreachable() -> None:
    # What asyncpg makes of the next statement there, between that message and the end of the connection.
    assert postgres.reason_of(asyncpg.InternalClientError("cannot switch to state 12")) == "unreachable"
