"""What the apps hold when nothing is asked of them: it must be the same before and after a round of faults."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from config import Settings
from tests.chaos.arena import AppProcess, Arena
from tests.chaos.memory import Violation
from tests.chaos.snapshot import query
from tristore.embedded.servers import STORES
from tristore.testing.lab import until

QUIET_SECONDS = 10
MEMORY_FACTOR, MEMORY_MORE = 1.1, 8_000_000
"""What an allocator keeps, and what pools and caches fill up to."""
MOST_SOCKETS = 24 + 34 + 38 + 4
"""Pools of PostgreSQL (20 + 3 + 1), Redis (32 + 1 + 1), MongoDB (32 + 1, and what watches it), and the app's own."""
BACKENDS = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'chatlingo-%'"


@dataclass(frozen=True)
class Holding:
    """Of one app."""

    tasks: Counter[str]
    in_use: Counter[str]
    connections: Counter[str]
    """Open ones to each store."""
    sockets: int
    """Idle ones in a pool whose server has hung up are among them: the pool finds out when it wants to use them."""
    files: int
    """Descriptors that are no sockets."""
    memory: int


async def holdings(arena: Arena) -> list[Holding]:
    """Once the apps have come to rest and the stores see no connection that the apps know nothing of. The apps may know
    of more: an idle one that was opened into a black hole, until it is used again."""
    latest: list[Holding] = []

    async def at_rest() -> bool:
        nonlocal latest
        before, latest = latest, [await _holding(arena, app) for app in arena.apps]
        seen = sum((holding.connections for holding in latest), Counter[str]())
        return _quiet(before) == _quiet(latest) and not await _seen_by_stores(arena.settings) - seen

    with suppress(TimeoutError):  # `leaks` tells what is not at rest
        await until(at_rest, QUIET_SECONDS)
    return latest


def _quiet(holdings: Sequence[Holding]) -> list[tuple[Any, ...]]:
    return [(holding.tasks, holding.in_use, holding.files) for holding in holdings]


async def leaks(arena: Arena, before: Sequence[Holding], after: Sequence[Holding]) -> list[Violation]:
    found = []
    for app, earlier, later in zip(arena.apps, before, after, strict=True):
        if later.tasks != earlier.tasks:
            found.append(f"{app.name}: tasks {later.tasks - earlier.tasks} more, {earlier.tasks - later.tasks} fewer")
        if later.in_use.total():
            found.append(f"{app.name}: connections are in use: {dict(later.in_use)}")
        if later.sockets > MOST_SOCKETS:
            found.append(f"{app.name}: {later.sockets} sockets, and its pools hold {MOST_SOCKETS} at most")
        if later.files > earlier.files:
            found.append(f"{app.name}: {later.files} files, and {earlier.files} before")
        if later.memory > earlier.memory * MEMORY_FACTOR + MEMORY_MORE:
            found.append(f"{app.name}: {later.memory:,} bytes of memory, and {earlier.memory:,} before")
    known = sum((holding.connections for holding in after), Counter[str]())
    if (seen := await _seen_by_stores(arena.settings)) - known:
        found.append(f"the stores see connections {dict(seen)}, the apps {dict(known)}")
    return [Violation(what) for what in found]


async def _holding(arena: Arena, app: AppProcess) -> Holding:
    told: Any = await app.ask("/lab", {})
    process = psutil.Process(app.pid)
    ports = {arena.proxies[store].port: store for store in STORES}
    connections: Counter[str] = Counter()
    for connection in process.net_connections("tcp"):
        if connection.raddr and connection.status == psutil.CONN_ESTABLISHED:
            connections.update(store for port, store in ports.items() if port == connection.raddr.port)
    open_files = _open_files(app.pid)
    sockets = sum(name.startswith("socket:") for name in open_files)
    memory = process.memory_info().rss
    return Holding(
        Counter(told["tasks"]), Counter(told["in_use"]), connections, sockets, len(open_files) - sockets, memory
    )


def _open_files(pid: int) -> list[str]:
    return [file.readlink().name for file in Path(f"/proc/{pid}/fd").iterdir()]


async def _seen_by_stores(settings: Settings) -> Counter[str]:
    async with (
        Redis.from_url(settings.dsn("redis_dsn")) as redis,
        AsyncMongoClient[dict[str, Any]](settings.dsn("mongodb_dsn")) as mongodb,
    ):
        clients = await redis.client_list()
        everything = [{"$currentOp": {"allUsers": True, "idleConnections": True}}]
        operations = await (await mongodb.admin.aggregate(everything)).to_list(None)
    [backends] = await query(settings, BACKENDS)
    return Counter(
        postgresql=int(backends["n"]),
        redis=sum(client["name"].startswith("chatlingo-") for client in clients),
        mongodb=len({op["connectionId"] for op in operations if op.get("appName") == "chatlingo"}),
    )
