"""Builds the services from the settings and the open stores."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from config import NAME, Settings
from database import mongodb, postgres, redis
from database.stores import Stores, open_stores
from database.unit_of_work import UnitOfWork
from migrations import REVISIONS
from models.conversation import Message
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import FORMAT, CacheRepository, Lifetime
from repositories.conversation_repo import ConversationRepository
from repositories.course_repo import CourseRepository
from repositories.idempotency_repo import IdempotencyRepository
from repositories.order_repo import OrderRepository
from repositories.seat_repo import SeatRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import AuthService
from services.conversation_service import ConversationService
from services.course_service import CourseService
from services.effects import QUEUES, Targets
from services.live_conversations import LiveConversations
from services.order_saga import OrderSaga
from services.order_service import OrderService
from services.privacy_service import PrivacyService
from services.rate_limit_service import RateLimitService
from services.user_service import UserService
from tristore.bounds.rate_counters import RateCounters
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import ALIVE_SECONDS, Feed
from tristore.cache.fence import Fence
from tristore.cache.fenced_cache import JITTER, FencedCache
from tristore.cache.invalidation import Invalidation
from tristore.cache.near import NearCache
from tristore.errors import StoreName
from tristore.live.listeners import LiveService
from tristore.ops.health import HealthService
from tristore.ops.metrics import Metrics
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.passwords import PasswordHasher
from tristore.saga.engine import Sagas
from tristore.saga.repository import SagaRepository


@dataclass(frozen=True)
class Services:
    auth: AuthService
    users: UserService
    conversations: ConversationService
    courses: CourseService
    orders: OrderService
    sagas: Sagas
    privacy: PrivacyService
    live: LiveService[Message]
    health: HealthService
    rate_limits: RateLimitService
    metrics: Metrics
    feed: Feed
    cache: FencedCache
    messages: ConversationRepository
    outbox: Outbox

    def start(self) -> None:
        """Start what runs beside the requests."""
        self.feed.start()
        self.outbox.start()
        self.live.start()
        self.metrics.start()

    async def close(self) -> None:
        """Stop the relay and wait for the tasks that requests have left."""
        await self.metrics.close()
        await self.outbox.close()
        await self.cache.close()
        await self.messages.close()
        await self.live.close()
        await self.feed.close()
        await self.health.close()


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services on stores of their own, for a command. Nothing runs beside it."""
    async with open_stores(settings) as stores:
        yield wire(settings, stores)


def wire(settings: Settings, stores: Stores) -> Services:
    """Build every service once; they live as long as the stores."""
    breaker = CircuitBreaker("redis", settings.redis_breaker_failures, settings.redis_breaker_seconds)
    longest = 1 + JITTER
    entry_seconds = longest * max(settings.cache_profile_ttl, settings.cache_session_ttl)
    feed = Feed(stores.redis, breaker, lambda: outbox.caught_up("redis"), entry_seconds)
    near = NearCache(settings.near_cache_entries, feed.is_alive) if settings.near_cache else None
    cache = FencedCache(
        Fence(stores.redis, breaker, FORMAT, settings.cache_load_lease),
        near=near,
        feed=feed,
        entry_seconds=entry_seconds,
        absent_seconds=settings.cache_absent_ttl,
        fallback_concurrency=settings.cache_fallback_concurrency,
    )
    copies = CacheRepository(
        cache,
        profiles=Lifetime(settings.cache_profile_ttl, settings.near_profile_seconds if near else 0),
        sessions=Lifetime(settings.cache_session_ttl, settings.near_session_seconds if near else 0),
    )
    conversations = ConversationRepository(stores.mongodb, feed.send)
    activity = ActivityRepository(stores.mongodb)
    seats = SeatRepository(stores.mongodb)
    owed = OutboxRepository(stores.postgres, QUEUES, settings.outbox_max_attempts)
    unit_of_work = partial(UnitOfWork, stores.postgres, owed.record)
    orders = OrderRepository(stores.postgres)
    users = UserRepository(stores.postgres)
    sessions = SessionRepository(
        stores.postgres,
        timedelta(seconds=settings.session_idle_seconds),
        # The former with its jitter. More than the 30 s that a copy has in all: the COMMIT may come late.
        copies_last=timedelta(seconds=longest * settings.cache_session_ttl + 2 * settings.near_session_seconds),
    )
    sagas = Sagas(
        unit_of_work=unit_of_work,
        repository=SagaRepository(stores.postgres),
        supersede=owed.supersede,
        kinds=[OrderSaga(orders=orders, seats=seats, seconds=settings.order_deadline)],
    )
    outbox = Outbox(
        repository=owed,
        targets=Targets(cache, conversations, activity, feed, seats, sagas, sessions),
        pings={"redis": partial(redis.ping, stores.redis), "mongodb": partial(mongodb.ping, stores.mongodb)},
        deadline=settings.effects_deadline,
        poll_seconds=settings.outbox_poll_seconds,
    )
    hasher = PasswordHasher(settings.app_name)
    probes: dict[StoreName, Callable[[], Awaitable[None]]] = {
        "postgresql": partial(postgres.ping, stores.postgres),
        "redis": feed.prove,
        "mongodb": partial(mongodb.ping, stores.mongodb),
    }
    health = HealthService(
        postgres=stores.postgres,
        probes=probes,
        outbox=outbox,
        breaker=breaker,
        revisions=REVISIONS,
        timeout=settings.health_timeout,
    )
    rate_limits = RateLimitService(
        counters=RateCounters(stores.redis, breaker),
        sign_in_address=settings.rate_limit("sign_in_address"),
        sign_in_account=settings.rate_limit("sign_in_account"),
        registration=settings.rate_limit("registration"),
        requests=settings.rate_limit("requests"),
    )
    invalidation = Invalidation(outbox=outbox, cache=cache, near_doubt=ALIVE_SECONDS if near else 0)
    auth = AuthService(
        unit_of_work=unit_of_work,
        sessions=sessions,
        cache=copies,
        outbox=outbox,
        invalidation=invalidation,
        hasher=hasher,
        lasts=timedelta(seconds=settings.session_seconds),
    )
    live = LiveService(
        source=LiveConversations(conversations),
        feed=feed,
        poll_seconds=settings.live_poll_seconds,
        heartbeat_seconds=settings.live_heartbeat_seconds,
        send_seconds=settings.live_send_seconds,
        verify_seconds=settings.postgres_request_deadline,
        max_per_caller=settings.live_max_per_user,
        max_listeners=settings.live_max_listeners,
    )
    counts = {
        "cache_events": cache.counts,
        "outbox_events": outbox.counts,
        "sign_ins": auth.counts,
        "rate_limited": rate_limits.counts,
        "live_events": live.counts,
        "wake_ups": feed.counts,
        "sagas": sagas.counts,
    }
    return Services(
        auth=auth,
        users=UserService(
            unit_of_work=unit_of_work,
            users=users,
            idempotency=IdempotencyRepository(),
            cache=copies,
            outbox=outbox,
            invalidation=invalidation,
            hasher=hasher,
        ),
        conversations=ConversationService(
            unit_of_work=unit_of_work,
            conversations=conversations,
            activity=activity,
            outbox=outbox,
            purge_seconds=settings.purge_seconds,
        ),
        courses=CourseService(
            unit_of_work=unit_of_work, courses=CourseRepository(stores.postgres), seats=seats, outbox=outbox
        ),
        orders=OrderService(
            unit_of_work=unit_of_work,
            orders=orders,
            idempotency=IdempotencyRepository(),
            sagas=sagas,
            outbox=outbox,
        ),
        sagas=sagas,
        privacy=PrivacyService(
            unit_of_work=unit_of_work,
            users=users,
            sessions=sessions,
            orders=orders,
            idempotency=IdempotencyRepository(),
            conversations=conversations,
            activity=activity,
            outbox=outbox,
            invalidation=invalidation,
            purge_seconds=settings.purge_seconds,
            page_seconds=settings.postgres_request_deadline,
        ),
        live=live,
        health=health,
        rate_limits=rate_limits,
        metrics=Metrics(
            stores=stores,
            breaker=breaker,
            health=health,
            counts=counts,
            gauges={
                "password_hashing_waiting": (
                    "Requests that wait for their turn to hash a password",
                    lambda: hasher.waiting + auth.waiting,
                ),
                "live_listeners": ("Open streams of messages", lambda: live.listening),
            },
            folder=f"{NAME}-metrics",
        ),
        feed=feed,
        cache=cache,
        messages=conversations,
        outbox=outbox,
    )
