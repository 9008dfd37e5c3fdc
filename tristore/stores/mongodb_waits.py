"""Mends how PyMongo waits on Python 3.11: for a connection, and until it has sent.

There `asyncio.wait_for` waits in a task of its own. Whoever is cancelled twice, such as by a time limit within another
one, leaves that task behind: it takes the lock of the pool and never gives it back, and from then on this process gets
no connection to MongoDB. And whoever is cancelled just when that task is done is not cancelled: the time limit is lost,
and the operation goes on. Since Python 3.12 `wait_for` has no such task: https://github.com/python/cpython/pull/98518.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

import pymongo.lock
from pymongo.asynchronous import pool
from pymongo.network_layer import PyMongoProtocol

T = TypeVar("T")


async def wait_in_this_task(awaitable: Awaitable[T], timeout: float | None) -> T:
    """As asyncio.wait_for does it since Python 3.12. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        return await awaitable


async def send(conn: PyMongoProtocol, buf: bytes) -> None:
    """As PyMongo's own. Raises OSError and TimeoutError."""
    await wait_in_this_task(conn.write(buf), conn.gettimeout)


def mend() -> None:
    if sys.version_info < (3, 12):
        pymongo.lock.wait_for = wait_in_this_task  # type: ignore[assignment,attr-defined]  # PyMongo has it from asyncio
        pool.async_sendall = send  # type: ignore[attr-defined]  # and this from a module of its own
