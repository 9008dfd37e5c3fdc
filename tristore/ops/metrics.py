"""What Prometheus reads. With several workers, the one that answers tells of all."""

import asyncio
import contextlib
import multiprocessing
import os
import tempfile
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anyio import to_thread

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import StoreUnavailable
from tristore.ops.health import Health, HealthService
from tristore.stores import mongodb, postgres, redis
from tristore.stores.stores import Stores

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SAMPLE_SECONDS = 1.0
AGE_SECONDS = 0.2
"""So long a scrape waits for the age of the oldest saga."""
# Seconds. Buckets, name and labels are those of OpenTelemetry's semantic conventions for HTTP, in Prometheus' spelling.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OUTBOX = {
    "backlog": "Effects that are owed",
    "dead": "Streams whose first effect has failed too often",
    "stuck": "Streams that their store refuses although its probe passes",
    "parked": "Effects in dead streams",
    "oldest_seconds": "Age of the oldest effect that is owed",
}
Gauges = Mapping[str, tuple[str, Callable[[], int]]]
"""Name -> what it says, and what reads it. With several workers the values are added up."""
REQUESTS = "http_server_request_duration_seconds"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


@dataclass(frozen=True)
class Family:
    """A metric, for the reference."""

    name: str
    kind: str
    labels: Sequence[str]
    text: str


class Metrics:
    """Hot paths count in plain dicts, which costs them next to nothing. A task carries those over once a second."""

    def __init__(
        self,
        *,
        stores: Stores,
        breaker: CircuitBreaker,
        health: HealthService,
        oldest_saga: Callable[[], Awaitable[float]],
        counts: Mapping[str, Counts[str]],
        gauges: Gauges,
        folder: str,
    ) -> None:
        """`oldest_saga` tells an age in seconds. `folder` begins the name of the temporary folder that the workers of
        one service share."""
        self._folder = _shared_folder(folder)
        # Imported only now: it looks for that folder when it is imported.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._stores = stores
        self._breaker = breaker
        self._health = health
        self._oldest_saga = oldest_saga
        self._registry = registry = CollectorRegistry()
        self._labels: dict[str, Sequence[str]] = dict.fromkeys(counts, ("event",))
        self._labels[REQUESTS] = ("http_request_method", "http_route", "http_response_status_code")
        self._requests = Histogram(REQUESTS, "Requests", self._labels[REQUESTS], buckets=BUCKETS, registry=registry)
        self._series: dict[tuple[str, str | None, int], Histogram] = {}
        self._counts = {
            name: (source, Counter(name, f"By event: {name}", ["event"], registry=registry), Counts[str]())
            for name, source in counts.items()
        }

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), *, of_all: bool = False) -> Gauge:
            # Either the workers' values are added up, or each tells of the same thing and the newest is right.
            mode: Literal["mostrecent", "livesum"] = "mostrecent" if of_all else "livesum"
            self._labels[name] = labels
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)

        self._pools = gauge("store_pool_connections", "Connections in use, and what the pools hold", ("store", "state"))
        self._breakers = gauge("cache_breakers_open", "Processes that leave Redis alone for the moment")
        self._gauges = [(gauge(name, text), read) for name, (text, read) in gauges.items()]
        self._up = gauge("store_up", "Whether the store answers", ("store",), of_all=True)
        self._mail = gauge("mail_up", "Whether the mail server answers. NaN where no mail is sent", of_all=True)
        self._lag = gauge("postgres_replica_lag_seconds", "How far the replica is behind at most", of_all=True)
        self._outbox = {name: gauge(f"outbox_{name}", text, of_all=True) for name, text in OUTBOX.items()}
        self._sagas = gauge("sagas_oldest_seconds", "Age of the oldest saga that is not at its end", of_all=True)
        self._schema = gauge("postgresql_schema_current", "Whether it is at this release or beyond", of_all=True)
        self._task: asyncio.Task[None] | None = None

    def families(self) -> list[Family]:
        """What there is, whether or not anything was counted yet."""
        told = self._registry.collect()
        return [Family(one.name, one.type, self._labels[one.name], one.documentation) for one in told]

    def start(self) -> None:
        self._task = asyncio.create_task(self._sample_repeatedly())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._sample()

    def observe_request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is the route's template: one series per path would fill the memory of whoever collects them."""
        method = method if method in METHODS else "_OTHER"
        series = self._series.get((method, route, status))
        if series is None:  # the library takes longer to look for it than to count
            series = self._series[method, route, status] = self._requests.labels(method, route or "none", str(status))
        series.observe(seconds)

    async def render(self) -> bytes:
        """The Prometheus text format, of all the workers of this service."""
        self._sample()
        self._tell(await self._health.report())
        self._schema.set(await self._health.has_started())
        self._sagas.set(await self._saga_age())
        return await to_thread.run_sync(self._render)

    async def _saga_age(self) -> float:
        try:
            async with asyncio.timeout(AGE_SECONDS):
                return await self._oldest_saga()
        except (StoreUnavailable, TimeoutError):
            return float("nan")

    def _render(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = self._registry
        if self._folder:
            registry = CollectorRegistry()
            _collect_workers(self._folder, registry)
        return generate_latest(registry)

    async def _sample_repeatedly(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    def _sample(self) -> None:
        for source, counter, told in self._counts.values():
            for event, total in source.items():
                counter.labels(event).inc(total - told[event])
                told[event] = total
        stores = self._stores
        for name, (in_use, size) in (
            ("postgresql", postgres.pool_use(stores.postgres)),
            ("redis", redis.pool_use(stores.redis)),
            ("mongodb", mongodb.pool_use(stores.mongodb)),
        ):
            self._pools.labels(name, "in_use").set(in_use)
            self._pools.labels(name, "size").set(size)
        self._breakers.set(self._breaker.is_open)
        for of_product, read in self._gauges:
            of_product.set(read())

    def _tell(self, health: Health) -> None:
        for store, state in health.databases.items():
            self._up.labels(store).set(state == "connected")
        self._mail.set(float("nan") if health.checks.mail is None else health.checks.mail == "connected")
        if replica := health.checks.postgresql.replica:
            self._lag.set(float("inf") if replica.lag_seconds is None else replica.lag_seconds)
        outbox = health.checks.outbox or {}
        for name, of_outbox in self._outbox.items():
            # Not a number where it is not known: an alert on an old value would be a false one.
            of_outbox.set(outbox.get(name, float("nan")))


def _shared_folder(prefix: str) -> Path | None:
    """Where the workers of one service leave their values for each other. None in a service of one process."""
    name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if name is None and multiprocessing.parent_process() is None:
        return None
    folder = Path(name or f"{tempfile.gettempdir()}/{prefix}-{os.getuid()}-{os.getppid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder


def _collect_workers(folder: Path, registry: "CollectorRegistry") -> None:
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    for file in folder.glob("gauge_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        with contextlib.suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:  # a worker that was killed could not say so
                mark_process_dead(pid)
    MultiProcessCollector(registry)
