"""Stores as in production, each with its own failover: PostgreSQL with a synchronous standby, Redis with a Sentinel or
as a cluster, MongoDB on three nodes. What happens to a primary, and what then has to serve."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread
from pydantic import SecretStr

from config import Settings
from tests.chaos import redis_cluster
from tests.chaos.replica_set import PATIENCE, ReplicaSet, three_nodes_in
from tests.chaos.schedule import Kind
from tests.chaos.witness import Witness, to_mongodb, to_postgresql, witnessed
from tests.under_test import migrate
from tristore.embedded.process import LOOPBACK, end, family
from tristore.embedded.servers import Store
from tristore.testing.cluster import RedisCluster, cluster_in
from tristore.testing.lab import until
from tristore.testing.replication import Replication, replication_in
from tristore.testing.sentinel import Sentinel, sentinel_in

ALONE_SECONDS = 1.5
"""For so long a primary that is cut off from the others takes writes which it will lose."""
SOON = 3.0
"""Seconds within which an app must serve again after its store does."""
LATER = 15.0
Failover = Callable[["Failovers"], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Outage:
    store: Store
    kind: Kind
    away: float
    serves: float
    """When the store took the app's kind of write again. Both by the monotonic clock."""

    def refused_for(
        self,
        refusals: Sequence[tuple[float, str]],
        until: float,
        witness: Witness | None,
        was_starved: Callable[[float], bool] = lambda _: False,
    ) -> float:
        """The longest time for which the store had served, and a client was still refused because of it. Seconds. Once
        nobody was refused for as long as it may last, it is over: a later refusal counts unless the machine starved."""
        longest, last = 0.0, self.serves
        for at in sorted(at for at, store in refusals if store == self.store and self.serves < at < until):
            if at - last > SOON and was_starved(at):
                continue
            last = at
            longest = max(longest, at - max(self.serves, witness.last_failure(at) if witness else 0))
        return longest


@dataclass
class Failovers:
    postgres: Replication
    redis: Sentinel | RedisCluster
    mongodb: ReplicaSet
    witnesses: Mapping[Store, Witness]
    """Of the stores without which a client is refused."""
    outages: list[Outage] = field(default_factory=list)

    def settings(self, settings: Settings, redis_dsn: str) -> Settings:
        dsns = {"postgres_dsn": self.postgres.dsn(), "redis_dsn": redis_dsn, "mongodb_dsn": self.mongodb.dsn}
        return settings.model_copy(update={name: SecretStr(dsn) for name, dsn in dsns.items()})

    @property
    def redis_now(self) -> str:
        """Past the Sentinel. Of a cluster any node, which tells the others."""
        if isinstance(self.redis, RedisCluster):
            return f"redis://:{self.redis.password}@{LOOPBACK}:{self.redis.nodes[0].port}/0"
        primary = self.redis.primary
        return f"redis://:{primary.password}@{LOOPBACK}:{primary.server.port}/0"

    @asynccontextmanager
    async def strike(self, kind: Kind, store: Store) -> AsyncIterator[None]:
        """The block begins when another server has taken over. After it the first one comes back."""
        away = time.monotonic()
        async with self._goes(kind, store):
            self.outages.append(Outage(store, kind, away, time.monotonic()))
            yield

    def _goes(self, kind: Kind, store: Store) -> AbstractAsyncContextManager[None]:
        if store == "redis" and isinstance(self.redis, RedisCluster):
            return redis_cluster.KINDS[kind](
                self.redis, f"{{{len(self.outages)}}}"
            )  # now of one primary, now of another
        return KINDS[store, kind](self)

    def refused(
        self, refusals: Sequence[tuple[float, str]], was_starved: Callable[[float], bool]
    ) -> list[tuple[Outage, float]]:
        """Each outage, and for how many seconds after it clients were refused. `was_starved`: at that time."""
        found = []
        for outage in self.outages:
            later = [other.away for other in self.outages if other.store == outage.store and other.away > outage.away]
            until, witness = min([*later, outage.serves + LATER]), self.witnesses.get(outage.store)
            found.append((outage, outage.refused_for(refusals, until, witness, was_starved)))
        return found


@asynccontextmanager
async def _postgres_goes(of: Failovers, go: Callable[[], object]) -> AsyncIterator[None]:
    go()
    await of.postgres.promote()
    try:
        yield
    finally:
        await of.postgres.rejoin()  # the old one is fenced: killed, and copied anew


@asynccontextmanager
async def _postgres_killed(of: Failovers) -> AsyncIterator[None]:
    async with _postgres_goes(of, of.postgres.primary.kill):
        yield


@asynccontextmanager
async def _postgres_hangs(of: Failovers) -> AsyncIterator[None]:
    primary = of.postgres.primary
    async with _postgres_goes(of, lambda: primary.signal(signal.SIGSTOP)):
        yield


@asynccontextmanager
async def _postgres_switched(of: Failovers) -> AsyncIterator[None]:
    """It ends in order, and the standby has all that it wrote."""
    process = of.postgres.primary.process
    assert process
    await to_thread.run_sync(end, family(process)[:1], signal.SIGINT)
    async with _postgres_goes(of, of.postgres.primary.kill):
        yield


@asynccontextmanager
async def _redis_killed(of: Failovers) -> AsyncIterator[None]:
    redis = _with_sentinel(of)
    redis.primary.signal(signal.SIGKILL)
    await redis.until_promoted()
    try:
        yield
    finally:
        await redis.replica.start()
        await redis.replica.follow(redis.primary)


@asynccontextmanager
async def _redis_hangs(of: Failovers) -> AsyncIterator[None]:
    redis = _with_sentinel(of)
    redis.primary.signal(signal.SIGSTOP)
    await redis.until_promoted()
    try:
        yield
    finally:
        redis.replica.signal(signal.SIGCONT)
        await redis.replica.follow(redis.primary)


@asynccontextmanager
async def _redis_switched(of: Failovers) -> AsyncIterator[None]:
    await _with_sentinel(of).switch_over()
    yield


def _with_sentinel(of: Failovers) -> Sentinel:
    assert isinstance(of.redis, Sentinel)
    return of.redis


@asynccontextmanager
async def _mongodb_killed(of: Failovers) -> AsyncIterator[None]:
    primary = await of.mongodb.primary()
    primary.kill()
    async with _others_go_on(of, primary, primary.start):
        yield


@asynccontextmanager
async def _mongodb_hangs(of: Failovers) -> AsyncIterator[None]:
    primary = await of.mongodb.primary()
    primary.signal(signal.SIGSTOP)
    async with _others_go_on(of, primary, lambda: primary.signal(signal.SIGCONT)):
        yield


@asynccontextmanager
async def _mongodb_switched(of: Failovers) -> AsyncIterator[None]:
    primary = await of.mongodb.primary()
    await primary.says("replSetStepDown", value=PATIENCE, secondaryCatchUpPeriodSecs=5)
    async with _others_go_on(of, primary, lambda: None):
        yield


@asynccontextmanager
async def _mongodb_alone(of: Failovers) -> AsyncIterator[None]:
    """It takes writes that no other has, dies with them, and rolls them back."""
    primary = await of.mongodb.primary()
    others = [node for node in of.mongodb.nodes if node is not primary]
    for node in others:
        node.kill()
    await asyncio.sleep(ALONE_SECONDS)
    primary.kill()
    for node in others:
        node.start()
    async with _others_go_on(of, primary, primary.start):
        yield


@asynccontextmanager
async def _others_go_on(of: Failovers, primary: object, come_back: Callable[[], object]) -> AsyncIterator[None]:
    others = [node for node in of.mongodb.nodes if node is not primary]
    await until(lambda: of.mongodb.has_primary(others), PATIENCE)
    try:
        yield
    finally:
        come_back()
        await until(of.mongodb.is_whole, PATIENCE)


KINDS: dict[tuple[Store, Kind], Failover] = {
    ("postgresql", "kill"): _postgres_killed,
    ("postgresql", "hang"): _postgres_hangs,
    ("postgresql", "switch-over"): _postgres_switched,
    ("redis", "kill"): _redis_killed,
    ("redis", "hang"): _redis_hangs,
    ("redis", "switch-over"): _redis_switched,
    ("mongodb", "kill"): _mongodb_killed,
    ("mongodb", "hang"): _mongodb_hangs,
    ("mongodb", "switch-over"): _mongodb_switched,
    ("mongodb", "failover"): _mongodb_alone,
}


@asynccontextmanager
async def failovers_in(folder: Path, settings: Settings, *, clustered: bool) -> AsyncIterator[Failovers]:
    """`clustered`: whether Redis is a cluster."""
    async with AsyncExitStack() as exits:
        postgres = await exits.enter_async_context(replication_in(folder / "replication"))
        redis: Sentinel | RedisCluster = await exits.enter_async_context(
            cluster_in(folder / "cluster") if clustered else sentinel_in(folder / "sentinel")
        )
        mongodb = await exits.enter_async_context(three_nodes_in(folder))
        write = await exits.enter_async_context(to_mongodb(mongodb))
        witnesses: dict[Store, Witness] = {
            "postgresql": await exits.enter_async_context(witnessed(to_postgresql(postgres))),
            "mongodb": await exits.enter_async_context(witnessed(write)),
        }
        failovers = Failovers(postgres, redis, mongodb, witnesses)
        await migrate(failovers.settings(settings, failovers.redis_now))
        yield failovers
