"""How a request gets its user, its key, and the services that several routers use. A router gets its own by itself."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from pydantic import TypeAdapter, WithJsonSchema

from models.session import SignedIn
from models.user import Caller, Role
from services.auth_service import AuthService
from services.privacy_service import PrivacyService
from services.rate_limit_service import RateLimitService
from services.user_service import UserService
from tristore.errors import NotAllowed, NotAuthenticated, NotVerified, StoreUnavailable
from tristore.http.anonymous import CountedByAddress
from tristore.http.problems import problems
from tristore.http.requests import address_of, bearer_token, mark_replayed, mark_who
from tristore.idempotency import PATTERN, IdempotencyKey, unquoted
from wiring import Services

CALLER = TypeAdapter(Caller)
ADMITTED = "admitted"


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


# Write `async def` although nothing is awaited: FastAPI runs a plain `def` in its thread pool, at a third of the speed.
# Let none depend on another: each that has to be solved costs a request some 10 us.
async def get_users(request: Request) -> UserService:
    return services_of(request).users


async def get_privacy(request: Request) -> PrivacyService:
    return services_of(request).privacy


async def get_rate_limits(request: Request) -> RateLimitService:
    return services_of(request).rate_limits


async def get_auth(request: Request) -> AuthService:
    return services_of(request).auth


Users = Annotated[UserService, Depends(get_users)]
Privacy = Annotated[PrivacyService, Depends(get_privacy)]
RateLimits = Annotated[RateLimitService, Depends(get_rate_limits)]
Auth = Annotated[AuthService, Depends(get_auth)]


class _OfToken(SecurityBase):
    """What the request's bearer token stands for. It is a security scheme itself: so the API's document shows it, and a
    request pays for one dependency instead of three. Raises NotAuthenticated, TooManyRequests."""

    def __init__(self) -> None:
        self.scheme_name = "OAuth2PasswordBearer"
        self.model = OAuth2(flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="auth/token", scopes={})))

    async def admit(self, request: Request) -> None:
        """Look at the token before the body is read."""
        request.scope[ADMITTED] = await self.session(request)

    async def session(self, request: Request) -> tuple[Services, SignedIn]:
        if admitted := request.scope.get(ADMITTED):
            known: tuple[Services, SignedIn] = admitted
            return known
        token = bearer_token(request)
        services = services_of(request)
        try:
            session = await services.auth.authenticate(token)
        except NotAuthenticated:
            services.rate_limits.anonymous(address_of(request))
            raise
        mark_who(request, session.user_id, session.session_id)
        services.rate_limits.request(session.user_id)
        return services, session


class CountedAsSignIn(CountedByAddress):
    """Also one whose form cannot be read."""

    async def count(self, request: Request, address: str) -> None:
        await super().count(request, address)
        await services_of(request).rate_limits.sign_in(address)


class SessionOfToken(_OfToken):
    async def __call__(self, request: Request) -> SignedIn:
        return (await self.session(request))[1]


class RecentSession(SessionOfToken):
    """In which the password was shown lately. Raises SignInAgain too."""

    async def __call__(self, request: Request) -> SignedIn:
        services, session = await self.session(request)
        await services.auth.require_recent(session)
        return session


class CallerOfToken(_OfToken):
    """With the role as of now."""

    async def __call__(self, request: Request) -> Caller:
        services, session = await self.session(request)
        return CALLER.validate_json(await services.users.own_profile(session))


async def note_caller(request: Request) -> None:
    """Of a route for anyone: who asks, if that is known. Whoever has just written is then not shown older data by a
    replica."""
    services, token = services_of(request), bearer_token(request)
    if token and services.has_replica:
        with suppress(NotAuthenticated, StoreUnavailable):  # then the primary is asked
            session = await services.auth.authenticate(token)
            mark_who(request, session.user_id, session.session_id)


CurrentSession = Annotated[SignedIn, Depends(SessionOfToken())]
CurrentUser = Annotated[Caller, Depends(CallerOfToken())]

KeyHeader = Annotated[
    Annotated[str, WithJsonSchema({"type": "string", "pattern": PATTERN})] | None,
    Header(
        alias="Idempotency-Key",
        description="Send the same one when you repeat a request: it is then not done twice. Kept for 24 hours",
    ),
]


async def get_key_of_anybody(request: Request, key: KeyHeader = None) -> IdempotencyKey | None:
    """The key of a request that comes before there is a user. It is nobody's: the service says whose (`of`). Raises
    InvalidInput."""
    if key is None:
        return None
    route = f"{request.method} {request.scope['route'].path}"
    sent = ", ".join(request.headers.getlist("Idempotency-Key"))  # as one line, which a proxy may make of two
    return IdempotencyKey(route, unquoted(sent), partial(mark_replayed, request))


async def get_key_of_caller(request: Request, caller: CurrentUser, key: KeyHeader = None) -> IdempotencyKey | None:
    """The key of a user's request. Raises InvalidInput."""
    sent = await get_key_of_anybody(request, key)
    return sent and sent.of(caller.id)


KeyOfAnybody = Annotated[IdempotencyKey | None, Depends(get_key_of_anybody)]
KeyOfCaller = Annotated[IdempotencyKey | None, Depends(get_key_of_caller)]


def recent(*statuses: int) -> dict[str, Any]:
    """What a route says of itself that changes what an account hangs on: it asks for a recent sign-in. `statuses`: its
    other errors."""
    return {"dependencies": [Depends(RecentSession())], "responses": problems(403, *statuses)}


def require_role(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency that lets only users of this role pass. Raises NotAuthenticated, NotAllowed."""

    async def check(caller: CurrentUser) -> Caller:
        if caller.role != role:
            raise NotAllowed
        return caller

    return check


async def require_verified(request: Request, caller: CurrentUser) -> Caller:
    """Lets an account pass that has a verified address, or is from before VERIFIED_EMAIL_SINCE. Raises
    NotVerified."""
    since = services_of(request).verified_since
    if since and caller.created_at.date() >= since and not caller.email_verified:
        raise NotVerified
    return caller


BY_SIGN_IN = Depends(CountedAsSignIn())
"""One of the `dependencies` of a route that takes a secret without a token."""
VerifiedUser = Annotated[Caller, Depends(require_verified)]
Admin = Annotated[Caller, Depends(require_role("admin"))]
