"""MongoDB on three nodes, as in production: a primary may die with what no other has, and roll it back later."""

import secrets
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tristore.embedded.accounts import write_private
from tristore.embedded.mongodb import KEY_FILE, REPLICA_SET, ROLES, MongoDB
from tristore.embedded.passwords import APP_ROLE
from tristore.testing.lab import free_port, until

ELECTION_MS = 2000
"""A primary that is alone steps down after so long."""
PATIENCE = 60


@dataclass
class Node:
    command: list[str]
    env: dict[str, str]
    log: Path
    port: int
    key: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)

    async def says(self, command: str, **more: Any) -> dict[str, Any]:
        """Nothing when it does not answer."""
        member = f"__system:{self.key}@{self.address}/?authSource=local&authMechanism=SCRAM-SHA-256"
        address = f"mongodb://{member}&directConnection=true&timeoutMS=2000"
        async with AsyncMongoClient[dict[str, Any]](address) as client:
            try:
                return await client.admin.command(command, **more)
            except PyMongoError:
                return {}

    async def answers(self) -> bool:
        return bool(await self.says("hello"))

    async def is_(self, state: str) -> bool:
        """isWritablePrimary or secondary."""
        return bool((await self.says("hello")).get(state))


@dataclass
class ReplicaSet:
    nodes: list[Node] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        addresses = ",".join(node.address for node in self.nodes)
        return f"mongodb://{APP_ROLE}:{self.nodes[0].key}@{addresses}/?replicaSet={REPLICA_SET}"

    @asynccontextmanager
    async def failover(self) -> AsyncIterator[None]:
        """The primary is alone while the block lasts. Then it dies, the others go on without it, and it comes back."""
        primary = await self.primary()
        others = [node for node in self.nodes if node is not primary]
        try:
            for node in others:
                node.kill()
            yield
        finally:
            primary.kill()
            for node in others:
                node.start()
            await until(lambda: self.has_primary(others), PATIENCE)
            primary.start()
            await until(lambda: primary.is_("secondary"), PATIENCE)

    async def primary(self) -> Node:
        await until(lambda: self.has_primary(self.nodes), PATIENCE)
        [primary] = [node for node in self.nodes if await node.is_("isWritablePrimary")]
        return primary

    async def has_primary(self, nodes: list[Node]) -> bool:
        return any([await node.is_("isWritablePrimary") for node in nodes])

    async def begin(self) -> None:
        for node in self.nodes:
            node.start()
            await until(node.answers, PATIENCE)
        members = [{"_id": number, "host": node.address} for number, node in enumerate(self.nodes)]
        settings = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": ELECTION_MS // 4}
        config = {"_id": REPLICA_SET, "members": members, "settings": settings}
        assert await self.nodes[0].says("replSetInitiate", value=config)
        await until(self.is_whole, PATIENCE)
        primary = await self.primary()
        assert await primary.says("createUser", value=APP_ROLE, pwd=primary.key, roles=ROLES[APP_ROLE])

    async def is_whole(self) -> bool:
        states = [await node.says("hello") for node in self.nodes]
        return sum(bool(state.get("isWritablePrimary")) for state in states) == 1 and all(
            state.get("isWritablePrimary") or state.get("secondary") for state in states
        )


@asynccontextmanager
async def three_nodes_in(folder: Path) -> AsyncIterator[ReplicaSet]:
    kind = MongoDB()
    nodes, key = [], secrets.token_hex(24)
    for number in range(3):
        data = folder / f"node-{number}"
        data.mkdir(parents=True)
        binary, port = kind.choose(kind.installed(), data), free_port()
        write_private(data / KEY_FILE, key)
        log = folder / f"node-{number}.log"
        nodes.append(Node(kind.command(binary, data, port), dict(binary.env), log, port, key))
    replica_set = ReplicaSet(nodes)
    try:
        await replica_set.begin()
        yield replica_set
    finally:
        for node in nodes:
            node.kill()
