"""Builds the services from the settings and the open stores. Each part is built once, when it is first asked for.

To add a service, add a property to `Services`. What several services share stands in `_Shared`."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property, partial

from config import NAME, Settings
from database import mongodb, postgres, redis
from database.stores import Stores, open_stores
from database.unit_of_work import UnitOfWork
from migrations import REVISIONS

# begin part live
from models.conversation import Message
from models.idempotency import IdempotencyRecord

# end part live
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import FORMAT, CacheRepository
from repositories.conversation_repo import ConversationRepository
from repositories.course_repo import CourseRepository
from repositories.order_repo import OrderRepository
from repositories.seat_repo import SeatRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import AuthService
from services.conversation_service import ConversationService
from services.course_service import CourseService
from services.effects import QUEUES, Targets

# begin part live
from services.live_conversations import LiveConversations

# end part live
from services.order_saga import OrderSaga
from services.order_service import OrderService
from services.personal import PERSONAL, Sources
from services.privacy_service import PrivacyService
from services.rate_limit_service import KINDS, RateLimitService
from services.user_service import UserService
from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.copies import Lifetime
from tristore.cache.feed import ALIVE_SECONDS, Feed
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import JITTER, FencedCache
from tristore.cache.invalidation import Invalidation
from tristore.cache.near import NearCache
from tristore.errors import StoreName
from tristore.idempotency import IdempotencyRepository

# begin part live
from tristore.live.listeners import LiveService

# end part live
from tristore.ops.health import HealthService
from tristore.ops.metrics import Metrics
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.passwords import PasswordHasher
from tristore.personal import erase_documents
from tristore.saga.engine import Sagas
from tristore.saga.repository import SagaRepository

LONGEST = 1 + JITTER
"""How many times its lifetime an entry stays in Redis at most."""


class _Shared:
    """What the services stand on."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._users = UserRepository(stores.postgres)
        self._orders = OrderRepository(stores.postgres)
        self._idempotency = IdempotencyRepository(IdempotencyRecord)
        self._activity = ActivityRepository(stores.mongodb)
        self._seats = SeatRepository(stores.mongodb)
        self._breaker = CircuitBreaker("redis", settings.redis_breaker_failures, settings.redis_breaker_seconds)
        self._hasher = PasswordHasher(settings.app_name)
        self._owed = OutboxRepository(stores.postgres, QUEUES, settings.outbox_max_attempts)
        self._unit_of_work = partial(UnitOfWork, stores.postgres, self._owed.record)
        self._ping_mongodb = partial(mongodb.ping, stores.mongodb)
        self._entry_seconds = LONGEST * max(settings.cache_profile_ttl, settings.cache_session_ttl)

    @cached_property
    def _sessions(self) -> SessionRepository:
        settings = self._settings
        # First the longest life in Redis. Then more than the 30 s that a near copy has: the COMMIT may come late.
        copies_last = LONGEST * settings.cache_session_ttl + 2 * settings.near_session_seconds
        return SessionRepository(
            self._stores.postgres,
            timedelta(seconds=settings.session_idle_seconds),
            copies_last=timedelta(seconds=copies_last),
        )

    @cached_property
    def _personal(self) -> Sources:
        return Sources(self._stores, self._settings.postgres_request_deadline, self._sessions)

    @cached_property
    def _messages(self) -> ConversationRepository:
        return ConversationRepository(self._stores.mongodb, self.feed.send)

    @cached_property
    def feed(self) -> Feed:
        return Feed(self._stores.redis, self._breaker, lambda: self.outbox.caught_up("redis"), self._entry_seconds)

    @cached_property
    def cache(self) -> FencedCache:
        settings = self._settings
        return FencedCache(
            Fence(self._stores.redis, self._breaker, FORMAT, settings.cache_load_lease),
            near=NearCache(settings.near_cache_entries, self.feed.is_alive) if settings.near_cache else None,
            feed=self.feed,
            entry_seconds=self._entry_seconds,
            absent_seconds=settings.cache_absent_ttl,
            fallback_concurrency=settings.cache_fallback_concurrency,
        )

    @cached_property
    def _copies(self) -> CacheRepository:
        settings, near = self._settings, self._settings.near_cache
        return CacheRepository(
            self.cache,
            profiles=Lifetime(settings.cache_profile_ttl, settings.near_profile_seconds if near else 0),
            sessions=Lifetime(settings.cache_session_ttl, settings.near_session_seconds if near else 0),
        )

    @cached_property
    def _invalidation(self) -> Invalidation:
        near_doubt = ALIVE_SECONDS if self._settings.near_cache else 0
        return Invalidation(outbox=self.outbox, cache=self.cache, near_doubt=near_doubt)

    @cached_property
    def sagas(self) -> Sagas:
        return Sagas(
            unit_of_work=self._unit_of_work,
            repository=SagaRepository(self._stores.postgres),
            supersede=self._owed.supersede,
            kinds=[OrderSaga(orders=self._orders, seats=self._seats, seconds=self._settings.order_deadline)],
        )

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(
            repository=self._owed,
            targets=Targets(
                self.cache,
                self._messages,
                self._activity,
                self.feed,
                self._seats,
                self.sagas,
                self._sessions,
                partial(erase_documents, PERSONAL, self._personal),
            ),
            pings={"redis": partial(redis.ping, self._stores.redis), "mongodb": self._ping_mongodb},
            deadline=self._settings.effects_deadline,
            poll_seconds=self._settings.outbox_poll_seconds,
        )


class Services(_Shared):
    """All that routers, commands and the lifespan ask for."""

    def start(self) -> None:
        """Start what runs beside the requests."""
        self.feed.start()
        self.outbox.start()
        # begin part live
        self.live.start()
        # end part live
        self.metrics.start()

    def end_streams(self) -> None:
        """End the answers that would go on for ever: the server waits for them before it stops."""
        # begin part live
        self.live.end_all()
        # end part live

    async def close(self) -> None:
        """Stop the relay and wait for the tasks that requests have left."""
        await self.metrics.close()
        await self.outbox.close()
        await self.cache.close()
        await self._messages.close()
        # begin part live
        await self.live.close()
        # end part live
        await self.feed.close()
        await self.health.close()

    @cached_property
    def auth(self) -> AuthService:
        return AuthService(
            unit_of_work=self._unit_of_work,
            sessions=self._sessions,
            cache=self._copies,
            outbox=self.outbox,
            invalidation=self._invalidation,
            hasher=self._hasher,
            lasts=timedelta(seconds=self._settings.session_seconds),
        )

    @cached_property
    def users(self) -> UserService:
        return UserService(
            unit_of_work=self._unit_of_work,
            users=self._users,
            idempotency=self._idempotency,
            cache=self._copies,
            outbox=self.outbox,
            invalidation=self._invalidation,
            hasher=self._hasher,
        )

    @cached_property
    def conversations(self) -> ConversationService:
        return ConversationService(
            unit_of_work=self._unit_of_work,
            conversations=self._messages,
            activity=self._activity,
            outbox=self.outbox,
            purge_seconds=self._settings.purge_seconds,
        )

    @cached_property
    def courses(self) -> CourseService:
        courses = CourseRepository(self._stores.postgres)
        return CourseService(unit_of_work=self._unit_of_work, courses=courses, seats=self._seats, outbox=self.outbox)

    @cached_property
    def orders(self) -> OrderService:
        return OrderService(
            unit_of_work=self._unit_of_work,
            orders=self._orders,
            idempotency=self._idempotency,
            sagas=self.sagas,
            outbox=self.outbox,
        )

    @cached_property
    def privacy(self) -> PrivacyService:
        return PrivacyService(
            unit_of_work=self._unit_of_work,
            users=self._users,
            activity=self._activity,
            sources=self._personal,
            outbox=self.outbox,
            invalidation=self._invalidation,
            purge_seconds=self._settings.purge_seconds,
        )

    @cached_property
    def rate_limits(self) -> RateLimitService:
        counters = RateCounters(self._stores.redis, self._breaker)
        return RateLimitService(counters, {kind: self._settings.rate_limit(kind) for kind in KINDS})

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
            revisions=REVISIONS,
            timeout=self._settings.health_timeout,
        )

    @cached_property
    def metrics(self) -> Metrics:
        return Metrics(
            stores=self._stores,
            breaker=self._breaker,
            health=self.health,
            counts=self._counts,
            gauges=self._gauges,
            folder=f"{NAME}-metrics",
        )

    # begin part live
    @cached_property
    def live(self) -> LiveService[Message]:
        settings = self._settings
        return LiveService(
            source=LiveConversations(self._messages),
            feed=self.feed,
            poll_seconds=settings.live_poll_seconds,
            heartbeat_seconds=settings.live_heartbeat_seconds,
            send_seconds=settings.live_send_seconds,
            verify_seconds=settings.postgres_request_deadline,
            max_per_caller=settings.live_max_per_user,
            max_listeners=settings.live_max_listeners,
        )

    # end part live

    @property
    def _counts(self) -> dict[str, Counter[str]]:
        return {
            "cache_events": self.cache.counts,
            "outbox_events": self.outbox.counts,
            "sign_ins": self.auth.counts,
            "rate_limited": self.rate_limits.counts,
            # begin part live
            "live_events": self.live.counts,
            # end part live
            "wake_ups": self.feed.counts,
            "sagas": self.sagas.counts,
        }

    @property
    def _gauges(self) -> dict[str, tuple[str, Callable[[], int]]]:
        hashing = "Requests that wait for their turn to hash a password"
        return {
            "password_hashing_waiting": (hashing, lambda: self._hasher.waiting + self.auth.waiting),
            # begin part live
            "live_listeners": ("Open streams of messages", lambda: self.live.listening),
            # end part live
        }


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services on stores of their own, for a command. Nothing runs beside it."""
    async with open_stores(settings) as stores:
        yield Services(settings, stores)
