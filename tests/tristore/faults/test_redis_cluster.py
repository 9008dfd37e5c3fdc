"""A Redis Cluster whose primaries are killed, hang and are replaced, and whose slots move: what two processes read."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.cache.repeats import SECONDS
from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.redis import RedisStore, open_redis, ping
from tristore.testing.cache import LONG, Process, Rows, running
from tristore.testing.cluster import ClusterNode, RedisCluster, cluster_in
from tristore.testing.lab import until
from tristore.testing.stores import Servers, servers_of, settings_on
from tristore.testing.tls import Authority

KEYS = [f"k{number}" for number in range(12)]
"""Some of each server."""


@pytest.fixture
async def cluster(run_folder: Path, tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """With replicas, in the run's folder, which ends what works in it."""
    async with cluster_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}") as cluster:
        yield cluster


@pytest.fixture
def rows() -> Rows:
    return Rows()


@asynccontextmanager
async def two_processes(servers: Servers, cluster: RedisCluster, rows: Rows) -> AsyncIterator[list[Process]]:
    settings = settings_on(servers, TristoreSettings, redis_dsn=cluster.dsn, redis_timeout=0.5)
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_redis(settings)) for _ in range(2)]
        yield [await stack.enter_async_context(running(redis, rows)) for redis in stores]


async def write(process: Process, rows: Rows, key: str) -> None:
    """As what ends a session: commit, invalidate until it has got through, wait until all have heard."""
    rows.versions[key] += 1
    version = rows.versions[key]
    while True:
        try:
            await process.cache.invalidate(key, version, heard=True)
            break
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    await process.cache.wait_until_heard([key])


async def disagreements(processes: list[Process], rows: Rows, keys: Iterable[str]) -> list[tuple[str, int, int]]:
    """Write through each process, and read through both."""
    found = []
    for key in keys:
        for process in processes:
            await write(process, rows, key)
            for reader in processes:
                if (read := await reader.read(key)) != rows.versions[key]:
                    found.append((key, read, rows.versions[key]))
    return found


async def all_alive(processes: list[Process]) -> bool:
    return all(process.feed.is_alive() for process in processes)


async def warm(processes: list[Process]) -> None:
    for process in processes:
        await process.warm(*KEYS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_two_processes_never_disagree_while_a_replica_takes_over_and_after_it(
    servers: Servers, cluster: RedisCluster, rows: Rows, number: signal.Signals
) -> None:
    async with two_processes(servers, cluster, rows) as processes:
        assert await disagreements(processes, rows, KEYS) == []
        await warm(processes)
        primary = await cluster.primary_of("{k0}")
        primary.signal(number)
        assert await disagreements(processes, rows, ["k0"]) == []  # returns when the cluster has taken the writes
        assert await cluster.until_taken_over("{k0}", primary) is not primary
        await until(lambda: all_alive(processes), 20)
        await warm(processes)
        if number == signal.SIGSTOP:
            primary.signal(signal.SIGCONT)  # and believes for a moment that it has its slots
            assert await disagreements(processes, rows, KEYS) == []
            await until(lambda: has_role(primary, "slave"), 20)
        assert await disagreements(processes, rows, KEYS) == []
        await until(lambda: all_alive(processes), 5)
        for process in processes:
            loads = rows.loads.total()
            await process.read("k0")
            await process.read("k1")
            assert rows.loads.total() == loads  # the cache is in use again


async def has_role(node: ClusterNode, role: str) -> bool:
    return await node.role() == role


async def test_a_planned_switch_over_is_followed(servers: Servers, cluster: RedisCluster, rows: Rows) -> None:
    async with two_processes(servers, cluster, rows) as processes:
        await warm(processes)
        before = [{server.identity.history for server in servers_of(process.redis)} for process in processes]
        primary = await cluster.primary_of("{k0}")
        await (await cluster.replica_of(primary)).says("CLUSTER FAILOVER")
        await cluster.until_taken_over("{k0}", primary)
        assert await disagreements(processes, rows, KEYS) == []
        await until(lambda: all_alive(processes), 10)
        after = [{server.identity.history for server in servers_of(process.redis)} for process in processes]
        assert before[0] == before[1] != after[0] == after[1]


async def test_what_a_server_held_before_its_slot_went_and_came_back_is_not_read(
    servers: Servers, cluster: RedisCluster, rows: Rows
) -> None:
    async with two_processes(servers, cluster, rows) as processes:
        await warm(processes)
        first = await cluster.primary_of("{k0}")
        second = next(node for node in cluster.nodes[:3] if node is not first)
        await cluster.move("{k0}", second)
        await until(lambda: all_alive(processes), 10)
        assert await disagreements(processes, rows, ["k0"]) == []
        await asyncio.sleep(SECONDS + 0.5)  # what is sent again would hide it
        await cluster.move("{k0}", first)
        await until(lambda: all_alive(processes), 10)
        for process in processes:
            process.near.clear()
            assert await process.read("k0") == rows.versions["k0"]
        assert await disagreements(processes, rows, KEYS) == []


async def test_who_has_an_old_map_is_sent_on_and_uses_the_name_that_the_key_has_there(
    servers: Servers, cluster: RedisCluster, rows: Rows
) -> None:
    settings = settings_on(servers, TristoreSettings, redis_dsn=cluster.dsn, redis_timeout=0.5)
    async with open_redis(settings) as redis:
        assert redis.cluster
        cache = FencedCache(Fence(redis, CircuitBreaker("redis", 1000, 0.01)))
        rows.versions["k0"] = 1
        await cache.get_or_load("k0", rows.loader("k0"), LONG)
        await redis.client.set("{k0}", "of one name")
        loads = rows.loads.total()
        for use in ("write", "read", "call"):
            before = redis.cluster.owner_of("{k0}")
            at = await cluster.primary_of("{k0}")
            redis.cluster._confirmed_at = time.monotonic() + 60  # nobody looks
            await cluster.move("{k0}", next(node for node in cluster.nodes[:3] if node is not at))
            if use == "write":
                await cache.invalidate("k0", 1)
            elif use == "read":
                assert await cache.get_or_load("k0", rows.loader("k0"), LONG) == b"1"
                assert cache.counts["fallback"] == 0
            else:
                assert await redis.client.get("{k0}") == b"of one name"
            assert redis.cluster.owner_of("{k0}") is not before
        assert rows.loads.total() == loads + 1
        await cache.close()


async def test_a_server_that_is_cut_off_from_the_others_is_not_believed(
    servers: Servers, cluster: RedisCluster, rows: Rows
) -> None:
    """The process reaches one primary of three. What the others say now it cannot know."""
    async with two_processes(servers, cluster, rows) as processes:
        await warm(processes)
        primary = await cluster.primary_of("{k0}")
        others = [node for node in cluster.nodes if node is not primary]
        for node in others:
            node.signal(signal.SIGSTOP)
        try:
            await until(lambda: none_alive(processes), 5)
            rows.versions["k0"] += 1
            assert [await process.read("k0") for process in processes] == [rows.versions["k0"]] * 2
            await until(lambda: knows_that_it_is_alone(primary), 5)  # until then it takes writes
            with pytest.raises(StoreUnavailable):
                await processes[0].cache.invalidate("k0", rows.versions["k0"])
        finally:
            for node in others:
                node.signal(signal.SIGCONT)
        await until(lambda: all_alive(processes), 20)
        assert await disagreements(processes, rows, KEYS) == []


async def knows_that_it_is_alone(node: ClusterNode) -> bool:
    return bool((await node.says("CLUSTER INFO"))["cluster_state"] == "fail")


async def none_alive(processes: list[Process]) -> bool:
    return not any(process.feed.is_alive() for process in processes)


async def test_all_hosts_of_the_dsn_but_one_may_be_down(servers: Servers, cluster: RedisCluster) -> None:
    settings = settings_on(servers, TristoreSettings, redis_dsn=cluster.dsn, redis_timeout=0.5)
    cluster.nodes[0].kill()
    async with open_redis(settings) as redis:
        await until(lambda: takes_writes(redis), 20)  # also where its slots were


async def test_each_node_is_reached_with_tls_by_the_name_that_it_announces(
    servers: Servers, run_folder: Path, tmp_path: Path, rows: Rows
) -> None:
    """rediss+cluster://, before a failover and after it."""
    authority = Authority.of(tmp_path)
    async with cluster_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}", tls=authority.context) as cluster:
        more = f"?ssl_ca_certs={authority.ca}&ssl_certfile={authority.cert}&ssl_keyfile={authority.key}"
        settings = settings_on(servers, TristoreSettings, redis_dsn=cluster.dsn + more, redis_timeout=0.5)
        async with open_redis(settings) as redis, running(redis, rows) as process:
            await warm([process])
            assert redis.cluster
            told = redis.cluster._view.addresses.values()
            assert sorted(told) == sorted(("localhost", node.announced) for node in cluster.nodes[:3])
            primary = await cluster.primary_of("{k0}")
            primary.kill()
            taken_over = await cluster.until_taken_over("{k0}", primary)
            assert await disagreements([process], rows, KEYS) == []
            await warm([process])
        for node in [*cluster.nodes[:3], taken_over]:
            assert node.front
            assert 0 < node.front.seen["tls"] == node.front.seen["certificate"]
        untrusted = settings_on(servers, TristoreSettings, redis_dsn=cluster.dsn, redis_timeout=2)
        async with open_redis(untrusted) as redis:
            with pytest.raises(StoreUnavailable):
                await ping(redis)


async def takes_writes(redis: RedisStore) -> bool:
    try:
        async with asyncio.timeout(1):
            await ping(redis)
    except (StoreUnavailable, TimeoutError):
        return False
    return True
