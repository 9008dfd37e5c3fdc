"""Which server of a cluster has which key is what most of them say, and on what is done when that changes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from tristore.cache.breaker import CircuitBreaker
from tristore.cache.cluster_feed import ClusterFeed, feed_on
from tristore.cache.entries import hash_tag
from tristore.cache.feed import BEAT_SECONDS, Feed
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import FencedCache
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore
from tristore.stores.redis_cluster import Address, Cluster, RoutingClient, ServerIdentity, view_of
from tristore.testing.cache import Rows
from tristore.testing.lab import until

A, B, C, D = (f"{name}:{number}" for number, name in enumerate("abcd", 1))
THIRDS = {A: (0, 5460), B: (5461, 10922), C: (10923, 16383)}


@dataclass
class World:
    """What each server says, by its address. One that is not in it does not answer."""

    said: dict[str, dict[str, tuple[int, int]]]
    asked: list[str] = field(default_factory=list)
    hold: Callable[[str], Any] | None = None

    def client(self, address: Address) -> Redis:
        return cast(Redis, Asked(self, f"{address[0]}:{address[1]}"))

    def cluster(self, *seeds: str) -> Cluster[RedisStore]:
        return Cluster(
            [(host, int(port)) for host, port in (seed.split(":") for seed in seeds)],
            open_server=fake_server,
            open_client=self.client,
        )


@dataclass
class Asked:
    world: World
    address: str

    async def execute_command(self, command: str) -> list[Any]:
        assert command == "CLUSTER SLOTS"
        self.world.asked.append(self.address)
        if self.world.hold:
            await self.world.hold(self.address)
        if self.address not in self.world.said:
            raise ConnectionRefusedError
        return [
            [first, last, [address.split(":")[0].encode(), int(address.split(":")[1]), address.encode(), []]]
            for address, (first, last) in self.world.said[self.address].items()
        ]

    async def aclose(self) -> None: ...


def fake_server(address: Address, identity: ServerIdentity) -> RedisStore:
    client = FakeAsyncRedis(server=FakeServer(), max_connections=100)
    identity.history = f"of {identity.node}"
    return RedisStore(client, client, client, 2, identity, raise_unknown=True)


def owner(cluster: Cluster[RedisStore], slot: int) -> str:
    server = cluster._owners[slot]
    return server.identity.node if server else ""


async def test_the_map_is_what_more_than_half_say() -> None:
    after = {A: (0, 5460), D: (5461, 10922), C: (10923, 16383)}  # D was promoted, which B has not heard
    world = World({A: after, B: THIRDS, C: after})
    cluster = world.cluster(B)
    assert await cluster.look()
    assert [owner(cluster, slot) for slot in (0, 5461, 16383)] == [A, D, C]
    await cluster.close()


async def test_a_server_that_reaches_no_other_is_not_believed() -> None:
    cluster = World({B: THIRDS}).cluster(B)
    assert not await cluster.look()
    with pytest.raises(StoreUnavailable, match="unreachable"):
        await cluster.server_of("key")
    await cluster.close()


async def test_no_map_is_confirmed_while_they_disagree_and_the_last_one_is_kept() -> None:
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster(A)
    assert await cluster.look()
    world.said = {A: THIRDS, B: {**THIRDS, B: (5461, 10000)}, C: {**THIRDS, C: (10923, 16000)}}
    cluster.doubt()
    assert not await cluster.look()
    assert (cluster.is_confirmed, owner(cluster, 10500)) == (False, B)
    await cluster.close()


async def test_the_last_of_them_is_not_waited_for() -> None:
    async def hold(address: str) -> None:
        if address == C:
            await asyncio.Event().wait()

    cluster = World(dict.fromkeys(THIRDS, THIRDS), hold=hold).cluster(A)
    async with asyncio.timeout(0.3):  # less than a server may take
        assert await cluster.look()
    await cluster.close()


async def test_when_all_have_other_addresses_the_hosts_of_the_dsn_are_asked_again() -> None:
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster("seed:1", A)
    assert await cluster.look()
    moved = {D: (0, 16383)}
    world.said = {"seed:1": moved, D: moved}
    assert await cluster.look()
    assert [server.identity.node for server in cluster.servers] == [D]
    await cluster.close()


async def test_whoever_asks_at_the_same_time_asks_once() -> None:
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster(A)
    await asyncio.gather(*(cluster.server_of(f"{number}") for number in range(50)))
    assert sorted(world.asked) == [A, A, B, C]
    await cluster.close()


async def test_each_server_has_a_tag_of_one_of_its_slots() -> None:
    cluster = World(dict.fromkeys(THIRDS, THIRDS)).cluster(A)
    await cluster.look()
    for server in cluster.servers:
        assert cluster.owner_of(server.identity.key("probes")) is server
    await cluster.close()


async def test_a_server_whose_slots_are_the_same_keeps_its_connections() -> None:
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster(A)
    await cluster.look()
    before = list(cluster.servers)
    after = {A: (0, 5460), D: (5461, 10922), C: (10923, 16383)}
    world.said = dict.fromkeys(after, after)
    assert await cluster.look()
    assert [server in before for server in cluster.servers] == [True, False, True]
    await cluster.close()


async def test_a_server_that_has_got_slots_is_connected_to_anew() -> None:
    """Only that tells the epoch that it has now."""
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster(A)
    await cluster.look()
    before = list(cluster.servers)
    after = {A: (0, 5460), B: (5461, 11000), C: (11001, 16383)}
    world.said = dict.fromkeys(after, after)
    assert await cluster.look()
    assert [server in before for server in cluster.servers] == [True, False, True]
    await cluster.close()


def test_a_server_that_does_not_say_its_address_is_where_it_was_asked() -> None:
    for host in (b"", None, b"?"):
        view = view_of([[0, 16383, [host, 7, b"id"], [b"replica", 8, b"other"]]], ("asked", 1))
        assert view
        assert view.addresses == {"id": ("asked", 7)}
    assert view_of([], ("asked", 1)) is None


@pytest.fixture
async def moving() -> AsyncIterator[tuple[World, RedisStore, Cluster[RedisStore]]]:
    world = World(dict.fromkeys(THIRDS, THIRDS))
    cluster = world.cluster(A)
    client = RoutingClient(cluster)
    yield world, RedisStore(client, client, client, 2, cluster=cluster, raise_unknown=True), cluster
    await cluster.close()


async def test_what_was_sent_to_the_server_before_is_sent_again(
    moving: tuple[World, RedisStore, Cluster[RedisStore]],
) -> None:
    """Somebody else has followed already, and has loaded what was there before the write."""
    world, redis, cluster = moving
    writer, rows = FencedCache(Fence(redis, CircuitBreaker("redis", 3, 1))), Rows()
    rows.versions["a"] = 1
    await writer.get_or_load("a", rows.loader("a"), 60)
    old = cluster.owner_of(hash_tag("a"))
    assert old
    at = world.said[A][old.identity.node]
    after = {name: slots for name, slots in THIRDS.items() if slots != at} | {D: at}
    rows.versions["a"] = 2
    await writer.invalidate("a", 2)
    world.said = dict.fromkeys(after, after)
    reader = FencedCache(Fence(redis, CircuitBreaker("redis", 3, 1)))
    seen = rows.versions["a"]
    rows.versions["a"] = 1  # as read before the commit
    await cluster.look()
    assert await reader.get_or_load("a", rows.loader("a"), 60) == b"1"
    rows.versions["a"] = seen
    await until(lambda: is_read(reader, rows, b"2"), 5)
    await writer.close()
    await reader.close()


async def test_servers_that_are_heard_are_not_believed_while_they_disagree_who_they_are(
    moving: tuple[World, RedisStore, Cluster[RedisStore]],
) -> None:
    world, redis, _ = moving
    feed = feed_on(redis, CircuitBreaker("redis", 3, 1))
    feed.start()
    try:
        await until(lambda: is_alive(feed), 5)
        world.said = {A: THIRDS, B: {**THIRDS, B: (5461, 10000)}, C: {**THIRDS, C: (10923, 16000)}}
        await until(lambda: is_alive(feed, False), 5)
        await asyncio.sleep(2 * BEAT_SECONDS)
        assert not feed.is_alive()
        assert isinstance(feed, ClusterFeed)
        assert all(each.is_alive() for each in feed._feeds.values())
        world.said = dict.fromkeys(THIRDS, THIRDS)
        await until(lambda: is_alive(feed), 5)
    finally:
        await feed.close()


async def is_alive(feed: Feed, alive: bool = True) -> bool:
    return feed.is_alive() == alive


async def is_read(cache: FencedCache, rows: Rows, body: bytes) -> bool:
    return await cache.get_or_load("a", rows.loader("a"), 60) == body
