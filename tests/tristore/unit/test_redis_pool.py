"""What a DSN with Sentinels, or of a cluster, tells redis-py, and what a pool does with its connections."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import SSLConnection

from tristore.stores.redis_pool import SentinelPool, pool_for, pool_to
from tristore.testing.stores import Servers

TIMES = {"socket_timeout": 0.4, "socket_connect_timeout": 0.4, "max_connections": 3, "timeout": 0.1}


def test_the_primary_is_asked_of_each_sentinel_with_its_own_credentials() -> None:
    dsn = "redis+sentinel://app:p%2Fw@a,b:26380,[::1]:5/main/2?sentinel_username=s&sentinel_password=x%40"
    pool = pool_for(dsn, **TIMES)
    assert isinstance(pool, SentinelPool)
    assert (pool.service_name, pool.max_connections) == ("main", 3)
    own = pool.connection_kwargs
    assert (own["username"], own["password"], own["db"], "host" in own) == ("app", "p/w", 2, False)
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == [("a", 26379), ("b", 26380), ("::1", 5)]
    assert [(one["username"], one["password"], one["socket_timeout"]) for one in asked] == [("s", "x@", 0.2)] * 3


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_with_tls_both_are_asked_with_tls(scheme: str) -> None:
    options = "?ssl_cert_reqs=none" if scheme == "rediss" else ""
    pool = pool_for(f"{scheme}+sentinel://a/main{options}", **TIMES)
    assert isinstance(pool, SentinelPool)
    assert issubclass(pool.connection_class, SSLConnection) == (scheme == "rediss")
    [asked] = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    assert asked.connection_kwargs.get("ssl_cert_reqs") == ("none" if scheme == "rediss" else None)
    assert pool.connection_kwargs.get("db", 0) == 0


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_each_server_of_a_cluster_is_connected_to_as_its_dsn_says(scheme: str) -> None:
    options = "?ssl_cert_reqs=none" if scheme == "rediss" else ""
    pool = pool_to(("::1", 7001), f"{scheme}+cluster://app:p%2Fw@a,b:1{options}", **TIMES)
    own = pool.connection_kwargs
    assert (own["host"], own["port"], own["username"], own["password"]) == ("::1", 7001, "app", "p/w")
    assert own.get("db", 0) == 0
    assert (pool.connection_class is SSLConnection, pool.max_connections) == (scheme == "rediss", 3)


async def test_whoever_is_cancelled_while_it_gives_a_connection_back_gives_it_back(servers: Servers) -> None:
    pool: Any = pool_for(
        servers["redis"].dsn, **{**TIMES, "max_connections": 1, "socket_timeout": 5, "socket_connect_timeout": 5}
    )
    connection = await pool.get_connection()
    async with pool._condition:  # as while another connection is closed
        giving_back = asyncio.create_task(pool.release(connection))
        await asyncio.sleep(0)
        giving_back.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving_back
    async with asyncio.timeout(5):
        assert await pool.get_connection() is connection
    await pool.release(connection)
    await pool.aclose()
