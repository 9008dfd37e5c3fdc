"""How a request gets its services, its user and its key."""

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from pydantic import TypeAdapter

from config import Settings
from models.conversation import Message
from models.idempotency import IdempotencyKey
from models.session import SignedIn
from models.user import Caller, Role
from services.auth_service import AuthService
from services.conversation_service import ConversationService
from services.course_service import CourseService
from services.order_service import OrderService
from services.privacy_service import PrivacyService
from services.rate_limits import RateLimits
from services.user_service import UserService
from tristore.errors import NotAllowed, NotAuthenticated, NotFound
from tristore.live.listeners import LiveService
from tristore.ops.health import HealthService
from tristore.ops.metrics import Metrics
from wiring import Services

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
CALLER = TypeAdapter(Caller)


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
Live = Annotated[LiveService[Message], _service("live")]
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


async def require_scraper(request: Request) -> None:
    """Let pass whoever has the metrics' token. Without one configured, only development has metrics. Raises NotFound,
    NotAuthenticated."""
    settings: Settings = request.app.state.settings
    if settings.metrics_token is None:
        if settings.environment == "production":
            raise NotFound
    elif not secrets.compare_digest(bearer_token(request).encode(), settings.metrics_token.get_secret_value().encode()):
        raise NotAuthenticated
