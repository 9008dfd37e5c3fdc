"""Redis with a replica and a Sentinel, which promotes the replica when the primary has gone."""

import secrets
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from anyio import to_thread
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from tristore.embedded.accounts import ONESELF, write_private
from tristore.embedded.process import LOOPBACK, free_port, spawn
from tristore.embedded.servers import EmbeddedServers, Server
from tristore.testing.lab import until
from tristore.testing.tls import TlsFront, tls_in_front_of, tls_or_plain_in_front_of

NAME = "main"
CONFIG = """
bind 127.0.0.1
port {port}
requirepass "{own_password}"
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
        self.front: TlsFront | None = None
        self.password = ""

    @property
    def announced(self) -> int:
        """The port where Sentinels know it."""
        return self.front.port if self.front else self.server.port

    async def start(self) -> None:
        """With the password that it had at first."""
        self.server = await to_thread.run_sync(self._embedded.start, "redis")
        own = str(urlsplit(self.server.dsn).password)
        self.password = self.password or own
        async with Redis(port=self.server.port, password=own) as client:
            await client.config_set("masterauth", self.password)
            await client.config_set("requirepass", self.password)
        if self.front:
            await self.announce(self.front)

    async def announce(self, front: TlsFront) -> None:
        """Be where the front is, for Sentinels and so for clients."""
        self.front = front
        async with self.client() as client:
            await client.config_set("replica-announce-port", front.port)

    async def follow(self, primary: "RedisNode") -> None:
        async with self.client() as client:
            await client.replicaof(LOOPBACK, str(primary.announced))

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
    password: str
    """Its own. Empty for none."""
    process: psutil.Process
    front: TlsFront | None = None

    @property
    def dsn(self) -> str:
        """For the app. The first host is no Sentinel. What TLS and its password need is to be added."""
        scheme, port = ("rediss", self.front.port) if self.front else ("redis", self.port)
        return f"{scheme}+sentinel://:{self.primary.password}@{LOOPBACK}:1,{LOOPBACK}:{port}/{NAME}/0"

    def client(self) -> Redis:
        return Redis(port=self.port, password=self.password or None)

    async def has_promoted(self) -> bool:
        """Whether the replica is the primary now, for itself and for the Sentinel."""
        try:
            async with self.client() as sentinel, self.replica.client() as replica:
                told: Any = await sentinel.sentinel_masters()  # as clients ask: by the other command it tells sooner
                role: Any = (await replica.info("replication"))["role"]
        except (OSError, RedisError):
            return False
        return bool(told[NAME]["port"] == self.replica.announced and role == "master")

    async def until_promoted(self) -> None:
        await until(self.has_promoted, PATIENCE)
        self.primary, self.replica = self.replica, self.primary

    async def switch_over(self) -> None:
        """While both are there."""
        await until(self._is_told_to_switch, PATIENCE)
        await self.until_promoted()

    async def _is_told_to_switch(self) -> bool:
        async with self.client() as sentinel:
            try:
                await sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
            except ResponseError as refusal:  # it takes a second until it knows how the replica is
                return "NOGOODSLAVE" not in str(refusal)
        return True

    async def knows_the_replica(self) -> bool:
        try:
            async with self.client() as sentinel:
                return bool(await sentinel.sentinel_slaves(NAME))
        except (OSError, RedisError):
            return False


@asynccontextmanager
async def sentinel_in(folder: Path, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Sentinel]:
    """All their data is in the folder. Whoever made it ends them: see guarded.py. `tls`: clients reach all three with
    TLS, and the Sentinel has a password of its own."""
    primary, replica = RedisNode(folder / "primary"), RedisNode(folder / "replica")
    await primary.start()
    replica.password = primary.password
    await replica.start()
    port, data, own_password = free_port(None), folder / "sentinel", secrets.token_hex(16) if tls else ""
    async with AsyncExitStack() as fronts:
        front = None
        if tls:
            for node in (primary, replica):
                await node.announce(await fronts.enter_async_context(tls_or_plain_in_front_of(node.server.port, tls)))
            front = await fronts.enter_async_context(tls_in_front_of(port, tls))
        await replica.follow(primary)
        data.mkdir()
        config = CONFIG.format(
            port=port, own_password=own_password, primary=primary.announced, password=primary.password
        )
        write_private(data / "sentinel.conf", config)
        program = psutil.Process(primary.server.pid).exe()
        process = spawn([program, "sentinel.conf", "--sentinel"], data, data / "log", {}, ONESELF)
        sentinel = Sentinel(primary, replica, port, own_password, process, front)
        try:
            await until(sentinel.knows_the_replica, PATIENCE)
            yield sentinel
        finally:
            process.kill()
            for node in (primary, replica):
                await node.stop()
