"""The faults that strike a store, each as a block: it lasts as long as the block, and is always taken back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from tests.chaos.schedule import Fault, Kind
from tests.under_test import Lab
from tristore.embedded.servers import Store
from tristore.testing.lab import until
from tristore.testing.proxy import DECISIVE, Proxy

GATHERING_SECONDS = 0.5
"""How long what is to land late is collected."""
RESET_EVERY = 0.3
TAKEN_BACK_SECONDS = 10
NOBODY = ("127.0.0.1", "1")


def strike(fault: Fault, store: Store, proxy: Proxy, lab: Lab) -> AbstractAsyncContextManager[None]:
    """The store as it is while the fault lasts."""
    if fault.kind in {"hang", "kill"}:
        return lab.without(store, "stopped" if fault.kind == "hang" else "killed")
    if fault.kind in {"refuses", "demoted"}:
        return REFUSALS[store, fault.kind](lab)
    return AT_PROXY[fault.kind](fault, store, proxy)


@asynccontextmanager
async def _latency(fault: Fault, store: Store, proxy: Proxy) -> AsyncIterator[None]:
    proxy.latency = fault.amount / 2
    try:
        yield
    finally:
        proxy.latency = 0


@asynccontextmanager
async def _resets(fault: Fault, store: Store, proxy: Proxy) -> AsyncIterator[None]:
    async def reset_repeatedly() -> None:
        while True:
            proxy.reset()
            await asyncio.sleep(RESET_EVERY)

    resetting = asyncio.create_task(reset_repeatedly())
    try:
        yield
    finally:
        resetting.cancel()


@asynccontextmanager
async def _black_hole(fault: Fault, store: Store, proxy: Proxy) -> AsyncIterator[None]:
    proxy.black_hole = True
    try:
        yield
    finally:
        proxy.black_hole = False
        proxy.reset()  # TCP never goes on after a gap


@asynccontextmanager
async def _late(fault: Fault, store: Store, proxy: Proxy) -> AsyncIterator[None]:
    proxy.hold(DECISIVE[store])
    enough = asyncio.get_running_loop().call_later(GATHERING_SECONDS, proxy.hold_no_more)
    try:
        yield
    finally:
        enough.cancel()
        proxy.release()


@asynccontextmanager
async def _lost_answers(fault: Fault, store: Store, proxy: Proxy) -> AsyncIterator[None]:
    proxy.lose_answer_to = DECISIVE[store]
    try:
        yield
    finally:
        proxy.lose_answer_to = b""


@asynccontextmanager
async def postgresql_read_only(lab: Lab) -> AsyncIterator[None]:
    """As a demoted server is to the sessions that it keeps."""
    try:
        await _configure(lab, "ALTER SYSTEM SET default_transaction_read_only = on")
        yield
    finally:
        await _configure(lab, "ALTER SYSTEM RESET default_transaction_read_only")


async def _configure(lab: Lab, statement: str) -> None:
    dsn = lab.servers["postgresql"].administrator_dsn.replace("+asyncpg", "")
    # A session that is read-only itself may not say it.
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
    try:
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    await until(lambda: _is_read_only(dsn, "RESET" not in statement), TAKEN_BACK_SECONDS)


async def _is_read_only(dsn: str, wanted: bool) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        return bool(await connection.fetchval("SHOW default_transaction_read_only") == ("on" if wanted else "off"))
    finally:
        await connection.close()


@asynccontextmanager
async def redis_without_replicas(lab: Lab) -> AsyncIterator[None]:
    """Reads are answered, and no write is."""
    async with Redis.from_url(lab.settings.dsn("redis_dsn")) as redis:
        try:
            await redis.config_set("min-replicas-to-write", 1)
            yield
        finally:
            await redis.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def redis_demoted(lab: Lab) -> AsyncIterator[None]:
    """A replica of nobody who is there: it keeps its connections and its data."""
    async with Redis.from_url(lab.settings.dsn("redis_dsn")) as redis:
        try:
            await redis.replicaof(*NOBODY)
            yield
        finally:
            await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def mongodb_locked(lab: Lab) -> AsyncIterator[None]:
    """`hello` is answered, and writes stall."""
    async with AsyncMongoClient[dict[str, Any]](lab.settings.dsn("mongodb_dsn")) as client:
        locking = asyncio.create_task(client.admin.command("fsync", lock=True))
        try:
            await asyncio.shield(locking)
            yield
        finally:
            await locking  # which an interrupted run may still be waiting for
            await client.admin.command("fsyncUnlock")


AT_PROXY: dict[Kind, Callable[[Fault, Store, Proxy], AbstractAsyncContextManager[None]]] = {
    "latency": _latency,
    "reset": _resets,
    "black hole": _black_hole,
    "late": _late,
    "lost answer": _lost_answers,
}
REFUSALS: dict[tuple[Store, Kind], Callable[[Lab], AbstractAsyncContextManager[None]]] = {
    ("postgresql", "refuses"): postgresql_read_only,
    ("redis", "refuses"): redis_without_replicas,
    ("redis", "demoted"): redis_demoted,
    ("mongodb", "refuses"): mongodb_locked,
}
