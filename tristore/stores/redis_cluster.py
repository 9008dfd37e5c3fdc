"""Redis Cluster: which of its servers has which key, as most of its primaries say.

Each server is a Redis of its own, with a history, heartbeats and connections of its own. This is the map of them. One
server alone is not believed: one that was cut off from the others does not know that its replica was promoted. So the
map is what more than half of the primaries say, and it is confirmed for a second. Whoever uses it, or another one,
has then heard it from a majority, and two majorities have a server in common.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tristore.errors import StoreUnavailable

CONFIRMED_SECONDS = 1.0
"""The map holds for so long after most of the primaries were asked. As long as a heartbeat holds."""
ASK_SECONDS = 0.4
"""A server has so long to tell its map."""

MOST_LEFT = 100
"""Histories that are remembered. What the oldest held has ended by itself."""

Address = tuple[str, int]


@dataclass
class ServerIdentity:
    """Which history of data the newest connection leads to: `master_replid`. A restart begins another one, because what
    is brought back may be old; so does each promotion. Open connections do not learn that, so scripts that must not
    miss it compare it. `run_id` would not do: a server that is promoted a second time has it still, and
    what it held in its first time. A connection that was opened under another history leads elsewhere, and is not used
    again.

    In a cluster the epoch of its slots stands behind it: slots that come back may bring what they held before."""

    history: str = ""
    node: str = ""
    """Its name in its cluster. Empty without one."""
    tag: str = ""
    """In a cluster, a hash tag of one of its slots."""
    _left: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LEFT))
    _changes: int = 0
    _opened_at: "WeakKeyDictionary[AbstractConnection, int]" = field(default_factory=WeakKeyDictionary)

    def learn(self, connection: AbstractConnection, history: str) -> None:
        """What a new connection leads to."""
        if history != self.history:
            self._left.append(self.history)
            self.history, self._changes = history, self._changes + 1
        self._opened_at[connection] = self._changes

    def has_left(self, history: str) -> bool:
        """Whether there was another one after it."""
        return history in self._left

    def is_of(self, connection: AbstractConnection) -> bool:
        """Whether no connection since has told another history."""
        return self._opened_at.get(connection, self._changes) == self._changes

    def key(self, name: str) -> str:
        """A key that this server has."""
        return f"{name}:{{{self.tag}}}" if self.node else name

    def channel(self, name: str) -> str:
        """In a cluster each message reaches all servers. On a channel of its own it is heard once, and in the order in
        which this server published: that of the others is not kept."""
        return f"{name}@{self.node}" if self.node else name


class Server(Protocol):
    @property
    def client(self) -> Redis: ...

    @property
    def identity(self) -> ServerIdentity: ...

    async def aclose(self) -> None: ...


S = TypeVar("S", bound=Server)
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """What one server says."""

    slots: tuple[tuple[int, int, str], ...]
    """The first and the last of a range, and the name of its primary."""
    addresses: dict[str, Address]


class Cluster(Generic[S]):
    """Nothing is asked before it is needed."""

    def __init__(
        self,
        seeds: Sequence[Address],
        *,
        open_server: Callable[[Address, ServerIdentity], S],
        open_client: Callable[[Address], Redis],
    ) -> None:
        """`open_client`: for one connection, on which also a replica answers."""
        self._seeds = seeds
        self._open_server = open_server
        self._open_client = open_client
        self._asking: dict[Address, Redis] = {}
        self._view = View((), {})
        self._servers: dict[str, S] = {}
        self._retired: list[S] = []
        self._owners: list[S | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._confirmed_at = float("-inf")
        self._looking: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._listeners: list[Callable[[], object]] = []

    @property
    def servers(self) -> Sequence[S]:
        """The primaries, as last confirmed."""
        return list(self._servers.values())

    @property
    def history(self) -> str:
        """Of all data."""
        return " ".join(server.identity.history for server in self._servers.values())

    @property
    def is_confirmed(self) -> bool:
        return time.monotonic() - self._confirmed_at < CONFIRMED_SECONDS

    def listen(self, changed: Callable[[], object]) -> None:
        """Call it when a slot has gone to another server."""
        self._listeners.append(changed)

    def forget(self, changed: Callable[[], object]) -> None:
        """Call it no longer."""
        self._listeners = [listener for listener in self._listeners if listener != changed]

    def doubt(self) -> None:
        """Somebody has seen that the map is old."""
        self._confirmed_at = float("-inf")

    async def confirmed(self) -> Sequence[S]:
        """The primaries. Raises StoreUnavailable when most of them do not say who they are."""
        if not self.is_confirmed and not await self.look():
            raise StoreUnavailable("redis", "unreachable", "no map of the cluster")
        return self.servers

    async def server_of(self, key: str) -> S:
        """The one that has the key. Raises StoreUnavailable when that is not known for sure."""
        if not self.is_confirmed:
            await self.confirmed()
        if server := self.owner_of(key):
            return server
        raise StoreUnavailable("redis", "unreachable", "slot not covered")

    def owner_of(self, key: str) -> S | None:
        """As last confirmed, however long ago."""
        return self._owners[key_slot(key.encode())]

    async def look(self) -> bool:
        """Ask the primaries. Whether most of them agree. Whoever comes meanwhile waits for the same answer."""
        if self._looking is None:
            self._looking = self._start(self._look())
        return await asyncio.shield(self._looking)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(
            *(server.aclose() for server in [*self._servers.values(), *self._retired]),
            *(client.aclose() for client in self._asking.values()),
            return_exceptions=True,
        )

    async def _look(self) -> bool:
        asked_at = time.monotonic()
        try:
            known = set(self._view.addresses.values())
            if view := await self._agreed(known) or await self._discovered():
                self._adopt(view)
                self._confirmed_at = asked_at
            return view is not None
        finally:
            self._looking = None

    async def _agreed(self, primaries: Collection[Address]) -> View | None:
        """What more than half of them say. It does not wait for the others: one may hang."""
        votes: Counter[tuple[tuple[int, int, str], ...]] = Counter()
        for answer in asyncio.as_completed([self._start(self._ask(address)) for address in primaries]):
            view: View | None = await answer
            if view:
                votes[view.slots] += 1
                if 2 * votes[view.slots] > len(primaries):
                    return view
        return None

    async def _discovered(self) -> View | None:
        """What the primaries agree on that one of the seeds names."""
        tried = set()
        for answer in asyncio.as_completed([self._start(self._ask(address)) for address in self._seeds]):
            if (view := await answer) and view.slots not in tried:
                tried.add(view.slots)
                if agreed := await self._agreed(set(view.addresses.values())):
                    return agreed
        return None

    async def _ask(self, address: Address) -> View | None:
        """None when it does not tell, or knows no slots."""
        client = self._asking.get(address)
        if client is None:
            client = self._asking[address] = self._open_client(address)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reply = await client.execute_command("CLUSTER SLOTS")
        except (exceptions.RedisError, OSError, TimeoutError):
            return None
        return view_of(reply, address)

    def _adopt(self, view: View) -> None:
        if view == self._view:
            return
        gained = {name for first, last, name in view.slots if self._has_others(first, last, name)}
        before, self._servers = self._servers, {}
        for name, address in view.addresses.items():
            is_same = name in before and name not in gained and self._view.addresses[name] == address
            self._servers[name] = before.pop(name) if is_same else self._open_server(address, ServerIdentity(node=name))
        self._view = view
        self._owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, name in view.slots:
            self._owners[first : last + 1] = [self._servers[name]] * (last - first + 1)
        self._tag()
        for address in set(self._asking) - set(view.addresses.values()) - set(self._seeds):
            self._start(self._asking.pop(address).aclose())
        for changed in self._listeners:
            changed()
        for server in before.values():
            self._retired.append(server)
            self._start(self._close_retired(server))

    def _has_others(self, first: int, last: int, name: str) -> bool:
        """Whether it has not had all these slots. Its epoch may be another one then, which new connections tell. Until
        they do, what a slot has brought back would be read."""
        return any(owner is not self._servers.get(name) for owner in self._owners[first : last + 1])

    async def _close_retired(self, server: S) -> None:
        await asyncio.sleep(CONFIRMED_SECONDS)  # what is under way on it
        await server.aclose()
        self._retired = [other for other in self._retired if other is not server]

    def _tag(self) -> None:
        """Give each server the lowest number whose slot it has: all processes find the same."""
        untagged, number = set(self._servers), 0
        while untagged:
            owner = self._owners[key_slot(b"%d" % number)]
            if owner and owner.identity.node in untagged:
                owner.identity.tag = str(number)
                untagged.remove(owner.identity.node)
            number += 1

    def _start(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def view_of(reply: Sequence[Any], asked: Address) -> View | None:
    """What CLUSTER SLOTS answers. A server may not know its own address, or be told not to say it. Raises nothing: None
    when there are no slots."""
    slots, addresses = [], {}
    for first, last, (host, port, name, *_), *_ in reply:
        known = host.decode() if host and host != b"?" else asked[0]
        addresses[name.decode()] = (known, int(port))
        slots.append((int(first), int(last), name.decode()))
    return View(tuple(sorted(slots)), addresses) if slots else None


class RoutingClient(Redis):
    """Sends each command to the server that has its key. For commands of one key, or of keys with one hash tag."""

    EVERYWHERE = frozenset(("PING", "FLUSHALL", "FLUSHDB", "SCRIPT LOAD"))

    def __init__(self, cluster: Cluster[Any]) -> None:
        super().__init__(connection_pool=ConnectionPool())  # of which nothing is taken
        self._cluster = cluster

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in self.EVERYWHERE:
            servers = await self._cluster.confirmed()
            return (await asyncio.gather(*(server.client.execute_command(*args, **options) for server in servers)))[0]
        key = str(args[3] if args[0] in {"EVAL", "EVALSHA"} else args[1])
        try:
            return await self._on_server_of(key, args, options)
        except exceptions.AskError:
            self._cluster.doubt()
            return await self._on_server_of(key, args, options)

    async def _on_server_of(self, key: str, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        server = await self._cluster.server_of(key)
        return await server.client.execute_command(*args, **options)
