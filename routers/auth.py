"""Signing in and out, and the sessions that this makes."""

import uuid
from typing import Annotated

from fastapi import Form, Request, Response

from dependencies import BY_SIGN_IN, Auth, CurrentSession, RateLimits, recent
from models.session import SessionList
from tristore.forms import PasswordConfirmation, SignIn, Token
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import address_of, client_of
from tristore.http.security_log import security_event

router = PrefixedRouter(prefix="/auth", tags=["auth"], about=__doc__, max_body_bytes=8192)


@router.post(
    "/token",
    summary="Sign in with username or email",
    responses=problems(401, 429, 503),
    dependencies=[BY_SIGN_IN],
)
@security_event("sign_in")
async def sign_in(auth: Auth, request: Request, form: Annotated[SignIn, Form()]) -> Token:
    """The token goes into `Authorization: Bearer`. It is shown here and never again. One too many ends the oldest."""
    return await auth.sign_in(form, address_of(request), client_of(request))


@router.post("/confirm-password", status_code=204, summary="Show the password again in this session")
@security_event("password_confirmation")
async def confirm_password(
    auth: Auth, limits: RateLimits, request: Request, who: CurrentSession, shown: PasswordConfirmation
) -> None:
    """As good as a new sign-in, for five minutes, where a 403 has the type `sign-in-again`."""
    turn = await limits.guess(address_of(request), str(who.user_id))  # guessing with a stolen token is guessing too
    await auth.confirm(who, shown.password, turn)


@router.post("/logout", status_code=204, summary="End this session")
@security_event("sign_out")
async def sign_out(auth: Auth, who: CurrentSession) -> None:
    await auth.end_sessions(who.user_id, only=who.session_id)


@router.post("/logout-all", status_code=204, summary="End all sessions of the caller")
@security_event("sign_out_everywhere")
async def sign_out_everywhere(auth: Auth, who: CurrentSession) -> None:
    await auth.end_sessions(who.user_id)


@router.post("/logout-others", status_code=204, summary="End all sessions of the caller but this one", **recent())
@security_event("sign_out_others")
async def sign_out_others(auth: Auth, who: CurrentSession) -> None:
    await auth.end_sessions(who.user_id, keep=who.session_id)


@router.get("/sessions", summary="The caller's sessions", response_model=SessionList)
async def list_sessions(auth: Auth, who: CurrentSession) -> Response:
    return Response(await auth.sessions(who), media_type="application/json")


@router.delete("/sessions/{session_id}", status_code=204, summary="End a session", **recent(404))
@security_event("session_end")
async def end_session(auth: Auth, who: CurrentSession, session_id: uuid.UUID) -> None:
    await auth.end_sessions(who.user_id, only=session_id)
