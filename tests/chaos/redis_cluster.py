"""Redis as a cluster of three primaries, each with a replica: what happens to a primary, and what then has to serve."""

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from redis.exceptions import RedisError

from tests.chaos.schedule import Kind
from tristore.testing.cluster import PATIENCE, RedisCluster
from tristore.testing.lab import until

Failover = Callable[[RedisCluster, str], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _killed(cluster: RedisCluster, key: str) -> AsyncIterator[None]:
    primary = await cluster.primary_of(key)
    primary.kill()
    await cluster.until_taken_over(key, primary)
    try:
        yield
    finally:
        await until(primary.has_ended, PATIENCE)
        primary.start()
        await until(lambda: _is_well(cluster), PATIENCE)


@asynccontextmanager
async def _hangs(cluster: RedisCluster, key: str) -> AsyncIterator[None]:
    primary = await cluster.primary_of(key)
    primary.signal(signal.SIGSTOP)
    try:
        await cluster.until_taken_over(key, primary)
        yield
    finally:
        primary.signal(signal.SIGCONT)  # and believes for a moment that it has its slots
        await until(lambda: _is_well(cluster), PATIENCE)


@asynccontextmanager
async def _switched(cluster: RedisCluster, key: str) -> AsyncIterator[None]:
    primary = await cluster.primary_of(key)
    await (await cluster.replica_of(primary)).says("CLUSTER FAILOVER")
    await cluster.until_taken_over(key, primary)
    yield
    await until(lambda: _is_well(cluster), PATIENCE)


async def _is_well(cluster: RedisCluster) -> bool:
    try:
        return await cluster.is_well()
    except (OSError, RedisError):
        return False


KINDS: Mapping[Kind, Failover] = {"kill": _killed, "hang": _hangs, "switch-over": _switched}
