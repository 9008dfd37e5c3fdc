"""Builds the machinery of a service from its settings and its open stores."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import urlsplit

from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.cluster_feed import feed_on
from tristore.cache.feed import ALIVE_SECONDS, Feed
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import JITTER, FencedCache
from tristore.cache.invalidation import Invalidation
from tristore.cache.near import NearCache
from tristore.cache.pins import RedisPins
from tristore.errors import StoreName
from tristore.live.hints import HintService, HintSource
from tristore.live.listeners import E, LiveService, LiveSettings
from tristore.live.source import Source
from tristore.mail.effects import MAIL
from tristore.mail.mailer import Mailer
from tristore.mail.templates import Templates
from tristore.mail.transports import MailFolder, SmtpServer, Transport
from tristore.migrations.history import History
from tristore.ops.health import HealthService
from tristore.ops.metrics import Metrics
from tristore.outbox.pauses import Ping
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.passwords import PasswordHasher
from tristore.saga.engine import Saga, Sagas
from tristore.saga.repository import SagaRepository
from tristore.settings import TristoreSettings
from tristore.stores import mongodb, postgres, redis
from tristore.stores.stores import Stores
from tristore.stores.watch import PostgresWatch

LONGEST = 1 + JITTER
"""How many times its lifetime an entry stays in Redis at most."""


@dataclass(frozen=True)
class Facts:
    """What the machinery has to know of its product."""

    title: str
    """What the service calls itself. Who guesses passwords tries it."""
    name: str
    """What its stores and folders are called."""
    queues: Sequence[str]
    """All that effects may name as their queue."""
    cache_format: int
    """Part of each key in the cache."""
    longest_ttl: float
    """Seconds: of the lifetimes that the product gives to what it caches."""
    revisions: History
    """The product's migrations of PostgreSQL."""
    templates: Path
    """The folder of its texts: `mail/` and `pages/`."""


class Components:
    """Each part is built once, when it is first asked for. The product's services extend this: they say what effects
    write to (`targets`), which sagas there are, and what else is started, counted and closed."""

    unit_of_work: Callable[[], PostgresUnitOfWork]
    """Begins one: the product has its own kind."""

    def __init__(self, settings: TristoreSettings, stores: Stores, facts: Facts) -> None:
        self._settings = settings
        self._stores = stores
        self._facts = facts
        self._breaker = CircuitBreaker("redis", settings.redis_breaker_failures, settings.redis_breaker_seconds)
        self._counters = RateCounters(stores.redis, self._breaker)
        self._hasher = PasswordHasher(facts.title, breach_url=settings.password_breach_url)
        self._owed = OutboxRepository(stores.postgres, facts.queues, settings.outbox_max_attempts)
        self._ping_mongodb = partial(mongodb.ping, stores.mongodb)
        self._entry_seconds = LONGEST * facts.longest_ttl
        self._watch = PostgresWatch(stores.postgres, settings.health_timeout)
        if stores.postgres.replica:
            stores.postgres.replica.pins = RedisPins(stores.redis, self._breaker, self.feed.is_alive)

    @property
    def stores(self) -> Stores:
        return self._stores

    @property
    def has_replica(self) -> bool:
        """Whether reads may come from a replica of PostgreSQL."""
        return self._stores.postgres.replica is not None

    def targets(self) -> object:
        """What the effects' `apply` is given."""
        raise NotImplementedError

    def pings(self) -> dict[str, Ping]:
        """The probes of the queues that wait for a store, by the queue's name."""
        mail = {MAIL: self.mailer.ping} if self.mailer else {}
        return {"redis": partial(redis.ping, self._stores.redis), "mongodb": self._ping_mongodb, **mail}

    def saga_kinds(self) -> Iterable[Saga]:
        return ()

    def counts(self) -> dict[str, Counter[str]]:
        """For the metrics, by name."""
        return {
            "cache_events": self.cache.counts,
            "outbox_events": self.outbox.counts,
            "wake_ups": self.feed.counts,
            "sagas": self.sagas.counts,
            **({"mails": self.mailer.counts} if self.mailer else {}),
            **({"replica_reads": replica.counts} if (replica := self._stores.postgres.replica) else {}),
        }

    def gauges(self) -> dict[str, tuple[str, Callable[[], int]]]:
        """For the metrics: by name a text, and what tells the value."""
        return {}

    async def close_own(self) -> None:
        """End what the product has started, while processes still hear each other."""

    def start(self) -> None:
        """Start what runs beside the requests."""
        self._watch.start()
        self.feed.start()
        self.outbox.start()
        self.metrics.start()

    async def close(self) -> None:
        """Stop the relay and wait for the tasks that requests have left."""
        await self.metrics.close()
        await self.outbox.close()
        if self.mailer:
            await self.mailer.close()
        await self.cache.close()
        await self.close_own()
        await self.feed.close()
        await self.health.close()
        await self._watch.close()

    @cached_property
    def feed(self) -> Feed:
        return feed_on(self._stores.redis, self._breaker, lambda: self.outbox.caught_up("redis"), self._entry_seconds)

    @cached_property
    def cache(self) -> FencedCache:
        settings, lineage = self._settings, self._stores.postgres.lineage
        near = NearCache(settings.near_cache_entries, self.feed.is_alive) if settings.near_cache else None
        if near:
            lineage.listen(near.clear)
        return FencedCache(
            Fence(self._stores.redis, self._breaker, self._facts.cache_format, settings.cache_load_lease, lineage),
            near=near,
            feed=self.feed,
            entry_seconds=self._entry_seconds,
            absent_seconds=settings.cache_absent_ttl,
            fallback_concurrency=settings.cache_fallback_concurrency,
        )

    @cached_property
    def invalidation(self) -> Invalidation:
        near_doubt = ALIVE_SECONDS if self._settings.near_cache else 0
        return Invalidation(outbox=self.outbox, cache=self.cache, near_doubt=near_doubt)

    @cached_property
    def sagas(self) -> Sagas:
        return Sagas(
            unit_of_work=self.unit_of_work,
            repository=SagaRepository(self._stores.postgres),
            supersede=self._owed.supersede,
            kinds=self.saga_kinds(),
        )

    @cached_property
    def mailer(self) -> Mailer | None:
        """None where no mail is sent: then none may be owed."""
        settings, transport = self._settings, self._mail_transport()
        if transport is None:
            return None
        texts = Templates(self._facts.templates / MAIL)
        return Mailer(transport, texts, sender=settings.mail_from, public_url=settings.link_base)

    @cached_property
    def pages(self) -> Templates:
        """What links in mails open."""
        return Templates(self._facts.templates / "pages")

    def _mail_transport(self) -> Transport | None:
        settings = self._settings
        if server := settings.mail_server:
            return SmtpServer(server, urlsplit(settings.link_base).hostname or "localhost")
        return MailFolder(settings.mail_folder) if settings.mail_folder else None

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(
            repository=self._owed,
            targets=self.targets(),
            pings=self.pings(),
            deadline=self._settings.effects_deadline,
            poll_seconds=self._settings.outbox_poll_seconds,
        )

    def live_service(self, source: Source[E]) -> LiveService[E]:
        """Streams of what the source has. The product starts and ends them."""
        return LiveService(source, **self._live_settings)

    def hint_service(self, source: HintSource) -> HintService:
        """Streams of hints. The product starts and ends them."""
        return HintService(source, **self._live_settings)

    @property
    def _live_settings(self) -> LiveSettings:
        settings = self._settings
        return LiveSettings(
            feed=self.feed,
            poll_seconds=settings.live_poll_seconds,
            heartbeat_seconds=settings.live_heartbeat_seconds,
            retry_seconds=settings.live_retry_seconds,
            verify_seconds=settings.postgres_request_deadline,
            max_per_caller=settings.live_max_per_user,
            max_listeners=settings.live_max_listeners,
        )

    @cached_property
    def health(self) -> HealthService:
        probes: dict[StoreName, Callable[[], Awaitable[None]]] = {
            "postgresql": partial(postgres.ping, self._stores.postgres),
            "redis": self.feed.prove,
            "mongodb": self._ping_mongodb,
        }
        return HealthService(
            postgres=self._stores.postgres,
            probes=probes,
            outbox=self.outbox,
            breaker=self._breaker,
            revisions=self._facts.revisions,
            timeout=self._settings.health_timeout,
            mail=self.mailer.ping if self.mailer else None,
        )

    @cached_property
    def metrics(self) -> Metrics:
        return Metrics(
            stores=self._stores,
            breaker=self._breaker,
            health=self.health,
            oldest_saga=self.sagas.oldest_seconds,
            counts=self.counts(),
            gauges=self.gauges(),
            folder=f"{self._facts.name}-metrics",
        )
