"""Signing in and out, and the sessions that this makes."""

from typing import Annotated

from fastapi import Depends, Form, Request, Response

from dependencies import Auth, CountedAsSignIn, CurrentSession
from models.session import SessionList, SignIn, Token
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems
from tristore.http.requests import address_of
from tristore.http.security_log import security_event

router = PrefixedRouter(prefix="/auth", tags=["auth"], about=__doc__)


@router.post(
    "/token",
    summary="Sign in with username or email",
    responses=problems(401, 429, 503),
    dependencies=[Depends(CountedAsSignIn())],
)
@security_event("sign_in")
async def sign_in(auth: Auth, request: Request, form: Annotated[SignIn, Form()]) -> Token:
    """The token goes into `Authorization: Bearer`. It is shown here and never again."""
    return await auth.sign_in(form, address_of(request))


@router.post("/logout", status_code=204, summary="End this session")
@security_event("sign_out")
async def sign_out(auth: Auth, who: CurrentSession) -> None:
    await auth.sign_out(who, everywhere=False)


@router.post("/logout-all", status_code=204, summary="End all sessions of the caller")
@security_event("sign_out_everywhere")
async def sign_out_everywhere(auth: Auth, who: CurrentSession) -> None:
    await auth.sign_out(who, everywhere=True)


@router.get("/sessions", summary="The caller's sessions", response_model=SessionList)
async def list_sessions(auth: Auth, who: CurrentSession) -> Response:
    return Response(await auth.sessions(who), media_type="application/json")
