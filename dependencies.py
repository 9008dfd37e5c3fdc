"""How a request gets its services and its user; with `main.py` the only place that wires."""

import uuid
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Request

from config import Settings
from database import mongodb, redis
from database.stores import Stores
from database.unit_of_work import PostgresUnitOfWork
from models.user import Caller, FullProfile
from repositories.breaker import CircuitBreaker
from repositories.cache_repo import CacheRepository
from repositories.conversation_repo import ConversationRepository
from repositories.outbox_repo import OutboxRepository
from repositories.user_repo import UserRepository
from services.conversation_service import ConversationService
from services.effects import Targets
from services.errors import NotAuthenticated, NotFound
from services.health_service import HealthService
from services.outbox import Outbox
from services.passwords import PasswordHasher
from services.user_service import UserService


@dataclass(frozen=True)
class Services:
    users: UserService
    conversations: ConversationService
    health: HealthService
    cache: CacheRepository
    messages: ConversationRepository
    outbox: Outbox

    async def close(self) -> None:
        """Stop the relay and wait for the tasks that requests have left."""
        await self.outbox.close()
        await self.cache.close()
        await self.messages.close()
        await self.health.close()


def wire(settings: Settings, stores: Stores) -> Services:
    """Build every service once; they live as long as the stores."""
    breaker = CircuitBreaker("redis", settings.redis_breaker_failures, settings.redis_breaker_seconds)
    cache = CacheRepository(
        stores.redis,
        breaker,
        lease_seconds=settings.cache_load_lease,
        absent_ttl=settings.cache_absent_ttl,
        fallback_concurrency=settings.cache_fallback_concurrency,
    )
    conversations = ConversationRepository(stores.mongodb)
    outbox = Outbox(
        repository=OutboxRepository(stores.postgres, settings.outbox_max_attempts),
        targets=Targets(cache, conversations),
        pings={"redis": partial(redis.ping, stores.redis), "mongodb": partial(mongodb.ping, stores.mongodb)},
        deadline=settings.effects_deadline,
        poll_seconds=settings.outbox_poll_seconds,
    )
    return Services(
        users=UserService(
            unit_of_work=partial(PostgresUnitOfWork, stores.postgres, outbox.record),
            users=UserRepository(stores.postgres),
            cache=cache,
            outbox=outbox,
            hasher=PasswordHasher(),
            profile_ttl=settings.cache_profile_ttl,
        ),
        conversations=ConversationService(conversations=conversations),
        health=HealthService(stores=stores, outbox=outbox, breaker=breaker, timeout=settings.health_timeout),
        cache=cache,
        messages=conversations,
        outbox=outbox,
    )


# `async def` although they await nothing: FastAPI runs a plain `def` in its thread pool, at a third of the speed.
async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def get_users(services: Annotated[Services, Depends(get_services)]) -> UserService:
    return services.users


async def get_conversations(services: Annotated[Services, Depends(get_services)]) -> ConversationService:
    return services.conversations


async def get_health(services: Annotated[Services, Depends(get_services)]) -> HealthService:
    return services.health


Users = Annotated[UserService, Depends(get_users)]
Conversations = Annotated[ConversationService, Depends(get_conversations)]
HealthChecks = Annotated[HealthService, Depends(get_health)]


async def get_caller(
    request: Request,
    users: Users,
    x_user_id: Annotated[str, Header(description="The acting user's id. Development only.")] = "",
) -> Caller:
    """The user that a header names: no proof at all, so only local and test accept it. Raises NotAuthenticated."""
    if request.app.state.settings.environment == "production":
        raise NotAuthenticated("Sign-in is not available in this release.")
    try:
        profile = FullProfile.model_validate_json(await users.get_user_profile(uuid.UUID(x_user_id)))
    except (ValueError, NotFound):
        raise NotAuthenticated("Name an existing user's id in the X-User-Id header.") from None
    return Caller(profile.id, profile.role)


CurrentUser = Annotated[Caller, Depends(get_caller)]
