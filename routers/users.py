"""Registration, profiles, and all that is kept of a user."""

import uuid
from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response
from structlog.contextvars import bind_contextvars

from dependencies import (
    Admin,
    Auth,
    CurrentSession,
    CurrentUser,
    KeyOfAnybody,
    Privacy,
    RateLimits,
    Users,
    recent,
    services_of,
)
from models.activity import ACTIVITY_KEPT, ActivityPage
from models.user import (
    TAG,
    DisabledUpdate,
    FullProfile,
    ProfileUpdate,
    PublicProfile,
    Registered,
    Registration,
    RoleUpdate,
    UserPage,
    tag_of,
)
from services.personal import Export
from tristore.forms import PasswordChange
from tristore.http.anonymous import BY_ADDRESS
from tristore.http.bounded_stream import BoundedStream
from tristore.http.conditional import UNLESS_KNOWN, IfMatch, tagged, unless_known
from tristore.http.headers import Located, sends
from tristore.http.parameters import PageSize
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import address_of
from tristore.http.security_log import security_event

router = PrefixedRouter(prefix="/users", tags=["users"], about=__doc__)
Search = Annotated[str, Query(max_length=254, pattern=r"^[^\s\x00-\x1f]*$")]


@router.get("", summary="All users, newest first, or those whose name or address begins so", responses=problems(403))
async def list_users(
    users: Users, _: Admin, search: Search = "", limit: PageSize = 20, cursor: uuid.UUID | None = None
) -> UserPage:
    return await users.page(limit, cursor, search)


@router.get("/me", summary="The caller's profile", response_model=FullProfile, **UNLESS_KNOWN)
async def read_me(request: Request, who: CurrentSession) -> Response:
    profile = await services_of(request).users.own_profile(who)  # as `users: Users` it costs a tenth more
    # The cache holds the response's own bytes, so a hit is neither parsed nor serialized again.
    return unless_known(request, profile, tag_of(profile))


@router.post(
    "/register",
    status_code=201,
    summary="Create an account",
    responses=problems(409, 429, 503) | {201: sends("Location")},
    dependencies=[BY_ADDRESS],
)
@security_event("registration")
async def register(
    users: Users, limits: RateLimits, request: Request, key: KeyOfAnybody, registration: Registration, located: Located
) -> Registered:
    """With a welcome conversation, which is there within seconds also after an outage of its store. The same
    Idempotency-Key again needs the same password, and counts as a sign-in."""
    address = address_of(request)
    await limits.registration(address)
    return located.at("/users/{user_id}", await users.register_user(registration, key, partial(limits.guess, address)))


@router.patch("/me", summary="Change what is sent", responses=problems(403, 409, 412) | {200: sends("ETag")})
@security_event("profile_change")
async def update_me(
    users: Users,
    auth: Auth,
    limits: RateLimits,
    request: Request,
    who: CurrentSession,
    caller: CurrentUser,
    tags: IfMatch,
    update: ProfileUpdate,
    response: Response,
) -> FullProfile:
    """A new name or address needs a recent sign-in. Where the service sends mail, a new address holds once it is
    verified."""
    bind_contextvars(changed=sorted(update.sent()))
    if {"username", "email"} & update.sent().keys():  # the answer tells whether it is taken, as that to a registration
        await auth.require_recent(who)
        await limits.registration(address_of(request))
    return tagged(response, await users.update_user(caller.id, update, tags), TAG)


@router.post("/me/password", status_code=204, summary="Change the password")
@security_event("password_change")
async def change_password(
    auth: Auth, limits: RateLimits, request: Request, who: CurrentSession, change: PasswordChange
) -> None:
    """Ends all other sessions."""
    address = address_of(request)
    await limits.sign_in(address)
    await limits.guess(address, str(who.user_id))  # guessing with a stolen token is guessing too
    await auth.change_password(who, change)


@router.delete("/me", status_code=202, summary="Erase the caller in all stores", response_class=Response, **recent(409))
@security_event("erasure")
async def erase_me(privacy: Privacy, caller: CurrentUser) -> None:
    """At once from sight; from each store as soon as it answers. What is kept names nobody. The last admin stays."""
    await privacy.erase(caller.id, is_admin=caller.role == "admin")


@router.get("/me/activity", summary=f"What the caller did in the last {ACTIVITY_KEPT.days} days, newest first")
async def read_activity(
    privacy: Privacy, caller: CurrentUser, limit: PageSize = 20, cursor: uuid.UUID | None = None
) -> ActivityPage:
    return await privacy.activity(caller.id, limit, cursor)


@router.get("/me/export", summary="All that is kept of the caller", response_model=Export, responses=problems(409))
@security_event("export")
async def export_me(privacy: Privacy, who: CurrentSession) -> BoundedStream:
    headers = {"Content-Disposition": 'attachment; filename="export.json"'}
    return BoundedStream(await privacy.export(who), "application/json", headers)


@router.get("/{user_id}", summary="A user: in full for oneself and admins", responses=problems(404))
async def read_user(users: Users, caller: CurrentUser, user_id: uuid.UUID) -> FullProfile | PublicProfile:
    return await users.view_user(user_id, caller)


@router.put("/{user_id}/role", summary="Make a user an admin, or a learner again", **recent(404, 409))
@security_event("role_change")
async def set_role(users: Users, admin: Admin, user_id: uuid.UUID, update: RoleUpdate) -> FullProfile:
    return await users.set_role(user_id, update.role, admin.id)


@router.put("/{user_id}/disabled", summary="Let a user in no more, or again", responses=problems(403, 404, 409))
@security_event("disabling")
async def set_disabled(users: Users, admin: Admin, user_id: uuid.UUID, update: DisabledUpdate) -> FullProfile:
    return await users.set_disabled(user_id, update.disabled, admin.id)


@router.delete("/{user_id}/sessions", status_code=204, summary="Sign a user out", responses=problems(403, 404))
@security_event("sessions_end")
async def end_sessions_of(users: Users, admin: Admin, user_id: uuid.UUID) -> None:
    await users.end_sessions(user_id, admin.id)
