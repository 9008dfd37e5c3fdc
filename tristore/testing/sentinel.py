"""Redis with a replica and a Sentinel, which promotes the replica when the primary has gone."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from anyio import to_thread
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tristore.embedded.accounts import ONESELF
from tristore.embedded.process import LOOPBACK, free_port, spawn
from tristore.embedded.servers import EmbeddedServers, Server
from tristore.testing.lab import until

NAME = "main"
CONFIG = """
bind 127.0.0.1
port {port}
sentinel monitor main 127.0.0.1 {primary} 1
sentinel auth-pass main {password}
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 3000
"""
PATIENCE = 30


class RedisNode:
    def __init__(self, folder: Path) -> None:
        self._embedded = EmbeddedServers(folder)
        self.server: Server
        self.password = ""

    async def start(self) -> None:
        """With the password that it had at first."""
        self.server = await to_thread.run_sync(self._embedded.start, "redis")
        own = str(urlsplit(self.server.dsn).password)
        self.password = self.password or own
        async with Redis(port=self.server.port, password=own) as client:
            await client.config_set("masterauth", self.password)
            await client.config_set("requirepass", self.password)

    async def follow(self, primary: "RedisNode") -> None:
        async with self.client() as client:
            await client.replicaof(LOOPBACK, str(primary.server.port))

            async def is_linked() -> bool:
                return bool((await client.info("replication")).get("master_link_status") == "up")

            await until(is_linked, PATIENCE)

    def client(self) -> Redis:
        return Redis(port=self.server.port, password=self.password)

    def signal(self, number: signal.Signals) -> None:
        psutil.Process(self.server.pid).send_signal(number)

    async def stop(self) -> None:
        await to_thread.run_sync(self._embedded.stop, "redis")


@dataclass
class Sentinel:
    primary: RedisNode
    replica: RedisNode
    port: int
    process: psutil.Process

    @property
    def dsn(self) -> str:
        """For the app. The first host is no Sentinel."""
        return f"redis+sentinel://:{self.primary.password}@{LOOPBACK}:1,{LOOPBACK}:{self.port}/{NAME}/0"

    async def has_promoted(self) -> bool:
        """Whether the replica is the primary now, for itself and for the Sentinel."""
        try:
            async with Redis(port=self.port) as sentinel, self.replica.client() as replica:
                [_, port] = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                role: Any = (await replica.info("replication"))["role"]
        except (OSError, RedisError):
            return False
        return int(port) == self.replica.server.port and role == "master"

    async def until_promoted(self) -> None:
        await until(self.has_promoted, PATIENCE)
        self.primary, self.replica = self.replica, self.primary

    async def switch_over(self) -> None:
        """While both are there."""
        async with Redis(port=self.port) as sentinel:
            await sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
        await self.until_promoted()

    async def knows_the_replica(self) -> bool:
        try:
            async with Redis(port=self.port) as sentinel:
                return bool(await sentinel.sentinel_slaves(NAME))
        except (OSError, RedisError):
            return False


@asynccontextmanager
async def sentinel_in(folder: Path) -> AsyncIterator[Sentinel]:
    """All their data is in the folder. Whoever made it ends them: see guarded.py."""
    primary, replica = RedisNode(folder / "primary"), RedisNode(folder / "replica")
    await primary.start()
    replica.password = primary.password
    await replica.start()
    await replica.follow(primary)
    port, data = free_port(None), folder / "sentinel"
    data.mkdir()
    config = CONFIG.format(port=port, primary=primary.server.port, password=primary.password)
    (data / "sentinel.conf").write_text(config)
    program = psutil.Process(primary.server.pid).exe()
    process = spawn([program, "sentinel.conf", "--sentinel"], data, data / "log", {}, ONESELF)
    sentinel = Sentinel(primary, replica, port, process)
    try:
        await until(sentinel.knows_the_replica, PATIENCE)
        yield sentinel
    finally:
        process.kill()
        for node in (primary, replica):
            await node.stop()
