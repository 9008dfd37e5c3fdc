"""A Redis Cluster of three primaries, each with a replica that takes its place when it has gone."""

import asyncio
import random
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from tristore.embedded.accounts import ONESELF, write_private
from tristore.embedded.kinds import Redis as Kind
from tristore.embedded.kinds import environment
from tristore.embedded.process import LOOPBACK, gone, is_free, spawn
from tristore.stores.redis_cluster import view_of
from tristore.testing.lab import until
from tristore.testing.tls import TlsFront, tls_or_plain_in_front_of

PRIMARIES = 3
BUS = 10_000
CONFIG = """
bind 127.0.0.1
port {port}
requirepass {password}
masterauth {password}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 1000
cluster-replica-validity-factor 0
repl-diskless-sync-delay 0
repl-ping-replica-period 1
save ""
appendonly no
"""
ANNOUNCED = """
cluster-announce-port {port}
cluster-announce-bus-port {bus}
cluster-announce-hostname localhost
cluster-preferred-endpoint-type hostname
"""
"""As managed clusters do that have TLS: certificates have names."""
PATIENCE = 30


class ClusterNode:
    def __init__(self, data: Path, password: str, port: int) -> None:
        self.data = data
        self.password = password
        self.port = port
        self.front: TlsFront | None = None
        self.id = ""
        self.process: psutil.Process

    def start(self) -> None:
        """With what it knew of the cluster."""
        self.data.mkdir(parents=True, exist_ok=True)
        config = CONFIG.format(port=self.port, password=self.password)
        config += ANNOUNCED.format(port=self.front.port, bus=self.port + BUS) if self.front else ""
        write_private(self.data / "redis.conf", config)
        kind = Kind()
        binary = kind.choose(kind.installed(), self.data)
        self.process = spawn([str(binary.path), "redis.conf"], self.data, self.data / "log", environment(), ONESELF)

    @property
    def announced(self) -> int:
        """The port that it tells clients."""
        return self.front.port if self.front else self.port

    def client(self) -> Redis:
        return Redis(port=self.port, password=self.password, socket_timeout=1, retry=Retry(NoBackoff(), 0))

    async def says(self, *command: Any) -> Any:
        async with self.client() as client:
            return await client.execute_command(*command)

    async def answers(self) -> bool:
        try:
            return bool(await self.says("PING"))
        except (OSError, RedisError):
            return False

    async def role(self) -> str:
        try:
            return str((await self.says("ROLE"))[0].decode())
        except (OSError, RedisError):
            return "none"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.kill()

    async def has_ended(self) -> bool:
        return gone(self.process)


@dataclass
class RedisCluster:
    nodes: Sequence[ClusterNode]
    """The primaries first, as it began."""
    password: str

    @property
    def dsn(self) -> str:
        """For the app. The first host is none of them. What TLS needs is to be added."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in (1, self.nodes[0].announced, self.nodes[1].announced))
        return f"redis{'s' * bool(self.nodes[0].front)}+cluster://:{self.password}@{hosts}"

    async def begin(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            await until(node.answers, PATIENCE)
            node.id = (await node.says("CLUSTER MYID")).decode()
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        for number, node in enumerate(primaries):
            await node.says("CLUSTER SET-CONFIG-EPOCH", number + 1)
            await node.says("CLUSTER ADDSLOTS", *range(first_slot(number), first_slot(number + 1)))
        for node in self.nodes[1:]:
            await node.says("CLUSTER MEET", LOOPBACK, self.nodes[0].port)
        await until(self._is_met, PATIENCE)
        for primary, replica in zip(primaries, replicas, strict=False):
            await replica.says("CLUSTER REPLICATE", primary.id)
        await until(self.is_well, PATIENCE)

    async def primary_of(self, key: str) -> ClusterNode:
        """As most of them say."""
        said = [await self._primary_of(key, node) for node in self.nodes]
        return next(node for node in self.nodes if 2 * said.count(node.announced) > PRIMARIES)

    async def _primary_of(self, key: str, asked: ClusterNode) -> int:
        slot = key_slot(key.encode())
        with suppress(OSError, RedisError):
            view = view_of(await asked.says("CLUSTER SLOTS"), (LOOPBACK, asked.port))
            owners = [name for first, last, name in view.slots if first <= slot <= last] if view else []
            return view.addresses[owners[0]][1] if view and owners else 0
        return 0

    async def replica_of(self, primary: ClusterNode) -> ClusterNode:
        ports = [int(replica[1]) for replica in (await primary.says("ROLE"))[2]]
        return next(node for node in self.nodes if node.port in ports)

    async def is_well(self) -> bool:
        """Whether every node says so, every primary has its replica, and all agree."""
        views = set()
        for node in self.nodes:
            told = await node.says("CLUSTER INFO")
            slots = await node.says("CLUSTER SLOTS")
            has_replicas = all(len(owners) == len(self.nodes) // PRIMARIES for _, _, *owners in slots)
            if told["cluster_state"] != "ok" or not has_replicas:
                return False
            if (role := await node.says("ROLE"))[0] == b"slave" and role[3] != b"connected":
                return False
            views.add(view.slots if (view := view_of(slots, (LOOPBACK, node.port))) else ())
        return len(views) == 1

    async def _is_met(self) -> bool:
        known = [int((await node.says("CLUSTER INFO"))["cluster_known_nodes"]) for node in self.nodes]
        return known == [len(self.nodes)] * len(self.nodes)

    async def until_taken_over(self, key: str, before: ClusterNode) -> ClusterNode:
        """Which node has the key now, once most agree that it is another one."""

        async def is_another() -> bool:
            said = [await self._primary_of(key, node) for node in self.nodes if node is not before]
            return any(2 * said.count(node.announced) > PRIMARIES for node in self.nodes if node is not before)

        await until(is_another, PATIENCE)
        return await self.primary_of(key)

    async def move(self, key: str, to: ClusterNode) -> None:
        """The slot of the key, with what is in it."""
        slot, source = key_slot(key.encode()), await self.primary_of(key)
        await to.says("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        await source.says("CLUSTER SETSLOT", slot, "MIGRATING", to.id)
        while names := await source.says("CLUSTER GETKEYSINSLOT", slot, 100):
            words = ("MIGRATE", LOOPBACK, to.port, "", 0, 5000, "AUTH", self.password, "KEYS", *names)
            await source.says(*words)
        for node in (to, source):
            await node.says("CLUSTER SETSLOT", slot, "NODE", to.id)
        await until(self._agree, PATIENCE)

    async def _agree(self) -> bool:
        views = [view_of(await node.says("CLUSTER SLOTS"), (LOOPBACK, node.port)) for node in self.nodes]
        return len({view.slots if view else () for view in views}) == 1


def free_ports(count: int) -> list[int]:
    """Each with the one for the bus, 10,000 above. Both are below the ephemeral ports."""
    ports = random.sample(range(20_000, 32_768 - BUS), 1_000)
    return list(islice((port for port in ports if is_free(port) and is_free(port + BUS)), count))


def first_slot(number: int) -> int:
    return number * REDIS_CLUSTER_HASH_SLOTS // PRIMARIES


@asynccontextmanager
async def cluster_in(
    folder: Path, *, replicas: int = 1, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RedisCluster]:
    """All their data is in the folder. Whoever made it ends them: see guarded.py. `replicas`: of each primary. `tls`:
    clients are told of ports with TLS."""
    password = secrets.token_hex(16)
    ports = free_ports(PRIMARIES * (1 + replicas))
    nodes = [ClusterNode(folder / f"node-{port}", password, port) for port in ports]
    cluster = RedisCluster(nodes, password)
    async with AsyncExitStack() as fronts:
        if tls:
            for node in nodes:
                node.front = await fronts.enter_async_context(tls_or_plain_in_front_of(node.port, tls))
        try:
            await cluster.begin()
            yield cluster
        finally:
            for node in nodes:
                node.kill()
            await asyncio.gather(*(until(node.has_ended, PATIENCE) for node in nodes))
