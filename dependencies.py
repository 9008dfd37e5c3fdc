"""How a request gets its services and its user; with `main.py` the only place that wires."""

import re
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from pydantic import TypeAdapter

from config import Settings
from database import mongodb, postgres, redis
from database.stores import Stores
from database.unit_of_work import PostgresUnitOfWork
from models.base import INT64
from models.idempotency import IdempotencyKey
from models.session import SignedIn
from models.user import Caller, Role
from repositories.activity_repo import ActivityRepository
from repositories.breaker import CircuitBreaker
from repositories.cache_repo import CacheRepository
from repositories.conversation_repo import ConversationRepository
from repositories.course_repo import CourseRepository
from repositories.idempotency_repo import IdempotencyRepository
from repositories.near_cache import NearCache
from repositories.order_repo import OrderRepository
from repositories.outbox_repo import OutboxRepository
from repositories.rate_limit_repo import RateLimitRepository
from repositories.saga_repo import SagaRepository
from repositories.seat_repo import SeatRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from repositories.wake_up_repo import ALIVE_SECONDS, WakeUpRepository
from services.auth_service import AuthService
from services.conversation_service import ConversationService
from services.course_service import CourseService
from services.effects import Targets
from services.errors import NotAllowed, NotAuthenticated, NotFound, StoreName
from services.health_service import HealthService
from services.invalidation import Invalidation
from services.live import Listener, LiveService
from services.metrics import Metrics
from services.order_saga import OrderSaga
from services.order_service import OrderService
from services.outbox import Outbox
from services.passwords import PasswordHasher
from services.privacy_service import PrivacyService
from services.rate_limits import RateLimits
from services.saga import Sagas
from services.user_service import UserService

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
CALLER = TypeAdapter(Caller)


@dataclass(frozen=True)
class Services:
    auth: AuthService
    users: UserService
    conversations: ConversationService
    courses: CourseService
    orders: OrderService
    sagas: Sagas
    privacy: PrivacyService
    live: LiveService
    health: HealthService
    limits: RateLimits
    metrics: Metrics
    cache: CacheRepository
    messages: ConversationRepository
    outbox: Outbox

    def start(self) -> None:
        """Start what runs beside the requests."""
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
        await self.health.close()


def wire(settings: Settings, stores: Stores) -> Services:
    """Build every service once; they live as long as the stores."""
    breaker = CircuitBreaker("redis", settings.redis_breaker_failures, settings.redis_breaker_seconds)
    entry_seconds = 1.1 * max(settings.cache_profile_ttl, settings.cache_session_ttl)
    wake_ups = WakeUpRepository(stores.redis, breaker, lambda: outbox.caught_up("redis"), entry_seconds)
    near = None
    if settings.near_cache:
        near = NearCache(settings.near_cache_entries, wake_ups.is_alive)
        wake_ups.listen(lambda names: near.drop(name.removeprefix("cache:") for name in names), near.clear)
    cache = CacheRepository(
        stores.redis,
        breaker,
        near=near,
        feed=wake_ups,
        entry_seconds=entry_seconds,
        lease_seconds=settings.cache_load_lease,
        absent_ttl=settings.cache_absent_ttl,
        fallback_concurrency=settings.cache_fallback_concurrency,
    )
    conversations = ConversationRepository(stores.mongodb, wake_ups.send)
    activity = ActivityRepository(stores.mongodb)
    seats = SeatRepository(stores.mongodb)
    owed = OutboxRepository(stores.postgres, settings.outbox_max_attempts)
    unit_of_work = partial(PostgresUnitOfWork, stores.postgres, owed.record)
    orders = OrderRepository(stores.postgres)
    users = UserRepository(stores.postgres)
    sessions = SessionRepository(
        stores.postgres,
        timedelta(seconds=settings.session_idle_seconds),
        # The former with its jitter. More than the 30 s that a copy has in all: the COMMIT may come late.
        copies_last=timedelta(seconds=1.1 * settings.cache_session_ttl + 2 * settings.near_session_seconds),
    )
    sagas = Sagas(
        unit_of_work=unit_of_work,
        repository=SagaRepository(stores.postgres),
        supersede=owed.supersede,
        kinds=[OrderSaga(orders=orders, seats=seats, seconds=settings.order_deadline)],
    )
    outbox = Outbox(
        repository=owed,
        targets=Targets(cache, conversations, activity, wake_ups, seats, sagas, sessions),
        pings={"redis": partial(redis.ping, stores.redis), "mongodb": partial(mongodb.ping, stores.mongodb)},
        deadline=settings.effects_deadline,
        poll_seconds=settings.outbox_poll_seconds,
    )
    hasher = PasswordHasher()
    probes: dict[StoreName, Callable[[], Awaitable[None]]] = {
        "postgresql": partial(postgres.ping, stores.postgres),
        "redis": wake_ups.prove,
        "mongodb": partial(mongodb.ping, stores.mongodb),
    }
    health = HealthService(
        stores=stores, probes=probes, outbox=outbox, breaker=breaker, timeout=settings.health_timeout
    )
    limits = RateLimits(
        repository=RateLimitRepository(stores.redis, breaker),
        sign_in_address=settings.rate_limit("sign_in_address"),
        sign_in_account=settings.rate_limit("sign_in_account"),
        registration=settings.rate_limit("registration"),
        requests=settings.rate_limit("requests"),
    )
    invalidation = Invalidation(outbox=outbox, cache=cache, near_doubt=ALIVE_SECONDS if near else 0)
    auth = AuthService(
        unit_of_work=unit_of_work,
        users=users,
        sessions=sessions,
        cache=cache,
        outbox=outbox,
        invalidation=invalidation,
        hasher=hasher,
        lasts=timedelta(seconds=settings.session_seconds),
        copy_ttl=settings.cache_session_ttl,
        near_ttl=settings.near_session_seconds if near else 0,
    )
    live = LiveService(
        conversations=conversations,
        wake_ups=wake_ups,
        poll_seconds=settings.live_poll_seconds,
        heartbeat_seconds=settings.live_heartbeat_seconds,
        send_seconds=settings.live_send_seconds,
        verify_seconds=settings.postgres_request_deadline,
        max_per_user=settings.live_max_per_user,
        max_listeners=settings.live_max_listeners,
    )
    counts = {
        "cache_events": cache.counts,
        "outbox_events": outbox.counts,
        "sign_ins": auth.counts,
        "rate_limited": limits.counts,
        "live_events": live.counts,
        "wake_ups": wake_ups.counts,
        "sagas": sagas.counts,
    }
    return Services(
        auth=auth,
        users=UserService(
            unit_of_work=unit_of_work,
            users=users,
            idempotency=IdempotencyRepository(),
            cache=cache,
            outbox=outbox,
            invalidation=invalidation,
            hasher=hasher,
            profile_ttl=settings.cache_profile_ttl,
            near_ttl=settings.near_profile_seconds if near else 0,
        ),
        conversations=ConversationService(
            unit_of_work=unit_of_work,
            users=users,
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
            users=users,
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
        limits=limits,
        metrics=Metrics(
            stores=stores,
            breaker=breaker,
            hashing=lambda: hasher.waiting + auth.waiting,
            health=health,
            listening=lambda: live.listening,
            counts=counts,
        ),
        cache=cache,
        messages=conversations,
        outbox=outbox,
    )


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _service(name: str) -> Any:
    """A dependency on one of the services."""

    # `async def` although it awaits nothing: FastAPI runs a plain `def` in its thread pool, at a third of the speed.
    # And none depends on another: each that has to be solved costs every request some 40 us.
    async def get(request: Request) -> Any:
        return getattr(services_of(request), name)

    return Depends(get)


Users = Annotated[UserService, _service("users")]
Courses = Annotated[CourseService, _service("courses")]
Orders = Annotated[OrderService, _service("orders")]
Conversations = Annotated[ConversationService, _service("conversations")]
Privacy = Annotated[PrivacyService, _service("privacy")]
Live = Annotated[LiveService, _service("live")]
HealthChecks = Annotated[HealthService, _service("health")]
Limits = Annotated[RateLimits, _service("limits")]
MetricsOfAll = Annotated[Metrics, _service("metrics")]
Auth = Annotated[AuthService, _service("auth")]


def address_of(request: Request) -> str:
    """Where the request comes from: the peer, or what a trusted proxy says of it."""
    return request.client.host if request.client else "unknown"


class _OfToken(SecurityBase):
    """What the request's bearer token stands for. A security scheme by itself, so that the API's document shows it, and
    the request pays for one dependency instead of three. Each raises NotAuthenticated, TooManyRequests."""

    def __init__(self) -> None:
        self.scheme_name = "OAuth2PasswordBearer"
        self.model = OAuth2(flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="auth/token", scopes={})))

    async def session(self, request: Request) -> tuple[Services, SignedIn]:
        token = bearer_token(request)
        if not TOKEN.fullmatch(token):
            raise NotAuthenticated
        services = services_of(request)
        session = await services.auth.authenticate(token)
        services.limits.request(session.user_id)
        return services, session


class SessionOfToken(_OfToken):
    async def __call__(self, request: Request) -> SignedIn:
        return (await self.session(request))[1]


class ProfileOfToken(_OfToken):
    """As the bytes of its JSON."""

    async def __call__(self, request: Request) -> bytes:
        services, session = await self.session(request)
        return await services.users.own_profile(session)


class CallerOfToken(_OfToken):
    """With the role as of now."""

    async def __call__(self, request: Request) -> Caller:
        services, session = await self.session(request)
        return CALLER.validate_json(await services.users.own_profile(session))


def bearer_token(request: Request) -> str:
    """What the request came with, empty if it came with none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


CurrentSession = Annotated[SignedIn, Depends(SessionOfToken())]
OwnProfile = Annotated[bytes, Depends(ProfileOfToken())]
CurrentUser = Annotated[Caller, Depends(CallerOfToken())]


KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="Send the same one when you repeat a request: it is then not done twice. Kept for 24 hours",
    ),
]


async def get_key_of_anybody(request: Request, key: KeyHeader = None) -> IdempotencyKey | None:
    """The key of a request that comes before there is a user."""
    return IdempotencyKey(f"anybody {_route(request)}", key) if key else None


async def get_key_of_caller(request: Request, caller: CurrentUser, key: KeyHeader = None) -> IdempotencyKey | None:
    """The key of a user's request: another user's same key is another one."""
    return IdempotencyKey(f"{caller.id} {_route(request)}", key) if key else None


def _route(request: Request) -> str:
    return f"{request.method} {request.scope['route'].path}"


KeyOfAnybody = Annotated[IdempotencyKey | None, Depends(get_key_of_anybody)]
KeyOfCaller = Annotated[IdempotencyKey | None, Depends(get_key_of_caller)]


def require_role(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency that lets only users of this role pass. Raises NotAuthenticated, NotAllowed."""

    async def check(caller: CurrentUser) -> Caller:
        if caller.role != role:
            raise NotAllowed
        return caller

    return check


Admin = Annotated[Caller, Depends(require_role("admin"))]


async def get_listener(
    live: Live,
    auth: Auth,
    who: CurrentSession,
    request: Request,
    conversation_id: uuid.UUID,
    last_event_id: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=INT64)] = None,
) -> AsyncIterator[Listener]:
    """A listener to a conversation of the caller, until the response has ended. Raises NotAuthenticated, NotFound,
    TooManyRequests, Overloaded."""
    async with live.listen(
        conversation_id, who, last_event_id, partial(auth.authenticate, bearer_token(request))
    ) as listener:
        yield listener


Listening = Annotated[Listener, Depends(get_listener)]


async def require_scraper(request: Request) -> None:
    """Let pass whoever has the metrics' token. Without one configured, only development has metrics. Raises NotFound,
    NotAuthenticated."""
    settings: Settings = request.app.state.settings
    if settings.metrics_token is None:
        if settings.environment == "production":
            raise NotFound
    elif not secrets.compare_digest(bearer_token(request).encode(), settings.metrics_token.get_secret_value().encode()):
        raise NotAuthenticated
