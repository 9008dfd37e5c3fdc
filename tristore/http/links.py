"""Routes for the links that mails carry: of the API, and the pages that the links open.

A page changes nothing until somebody presses its button: programs that look for viruses in mails open every link.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Form, Query, Request, Response, params
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field, SecretStr

from tristore.bounds.limits import Limits
from tristore.errors import InvalidInput, StoreUnavailable, TooManyRequests, TristoreError
from tristore.fields import NewPassword
from tristore.forms import PasswordReset, ResetRequest, Verification
from tristore.http.problems import ANSWERS, problems
from tristore.http.requests import mark_refused
from tristore.http.security_log import security_event
from tristore.mail.templates import Templates
from tristore.recovery import Recovery
from tristore.tokens import SentToken

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
Language = Annotated[str, Field(max_length=12, pattern=r"^[A-Za-z0-9-]*$")]


class Services(Protocol):
    @property
    def recovery(self) -> Recovery: ...
    @property
    def pages(self) -> Templates: ...


ServicesOf = Callable[[Request], Services]


def add_link_routes(
    router: APIRouter, services_of: ServicesOf, owner: Callable[..., object], guard: params.Depends
) -> None:
    """`owner`: a dependency that tells whose request it is. `guard`: one of the `dependencies` of a route that takes a
    secret without a token."""

    async def get_recovery(request: Request) -> Recovery:
        return services_of(request).recovery

    of_links = Annotated[Recovery, Depends(get_recovery)]

    @router.post(
        "/password-reset",
        status_code=202,
        summary="Ask for a mail with which to choose a new password",
        response_class=Response,
        responses=problems(429, 503),
        dependencies=[guard],
    )
    @security_event("password_reset_request")
    async def request_password_reset(request: Request, recovery: of_links, asked: ResetRequest) -> None:
        """The answer is the same whether anybody has the address or not."""
        if await _limits(request).may_mail(asked.email):
            await recovery.ask_reset(asked.email)

    @router.post(
        "/password-reset/confirm",
        status_code=204,
        summary="Choose a new password, with the token of a mail",
        responses=problems(429, 503),
        dependencies=[guard],
    )
    @security_event("password_reset")
    async def reset_password(recovery: of_links, reset: PasswordReset) -> None:
        """Ends all sessions. A token works once."""
        await recovery.reset(reset.token, reset.new_password)

    @router.post(
        "/email-verification",
        status_code=202,
        summary="Ask once more for the mail that verifies the caller's address",
        response_class=Response,
    )
    @security_event("email_verification_request")
    async def request_verification(
        request: Request, recovery: of_links, caller: Annotated[uuid.UUID, Depends(owner)]
    ) -> None:
        """Where others have asked for many mails to that address, none is sent, and the answer is the same."""
        limits = _limits(request)
        await limits.mail(str(caller))
        await recovery.ask_verification(caller, limits.may_mail)

    @router.post(
        "/email-verification/confirm",
        status_code=204,
        summary="Verify an address, with the token of a mail",
        responses=problems(409, 429, 503),
        dependencies=[guard],
    )
    @security_event("email_verification")
    async def verify_email(recovery: of_links, verification: Verification) -> None:
        await recovery.verify(verification.token)


class Opened(BaseModel):
    """What a link says."""

    token: SentToken
    language: Language = ""


class Sent(Opened):
    """What a page sends when its button is pressed."""


class SentPassword(Opened):
    password: NewPassword


def add_pages(router: APIRouter, services_of: ServicesOf, guard: params.Depends) -> None:
    """The pages that links open, which `PAGES` of tristore/links.py names. They send the token in a body, so that it
    stands in no log, and take nothing from elsewhere."""

    @router.get("/verify-email", include_in_schema=False, dependencies=[guard])
    async def show_verification(request: Request, opened: Annotated[Opened, Query()]) -> HTMLResponse:
        return _page(services_of(request).pages, "verify", opened)

    @router.post("/verify-email", include_in_schema=False, dependencies=[guard])
    @security_event("email_verification")
    async def press_verification(request: Request, sent: Annotated[Sent, Form()]) -> HTMLResponse:
        services = services_of(request)
        return await _pressed(request, services.pages, "verify", sent, services.recovery.verify(sent.token))

    @router.get("/reset-password", include_in_schema=False, dependencies=[guard])
    async def show_reset(request: Request, opened: Annotated[Opened, Query()]) -> HTMLResponse:
        return _page(services_of(request).pages, "reset", opened)

    @router.post("/reset-password", include_in_schema=False, dependencies=[guard])
    @security_event("password_reset")
    async def press_reset(request: Request, sent: Annotated[SentPassword, Form()]) -> HTMLResponse:
        services = services_of(request)
        return await _pressed(
            request, services.pages, "reset", sent, services.recovery.reset(sent.token, sent.password)
        )


def _limits(request: Request) -> Limits:
    limits: Limits = request.app.state.limits
    return limits


async def _pressed(request: Request, pages: Templates, name: str, sent: Opened, doing: Awaitable[None]) -> HTMLResponse:
    try:
        await doing
    except InvalidInput as error:
        if error.field == "new_password":  # the page has the token, which no error may have
            mark_refused(request)
            return _page(pages, name, sent, state="weak")
        return _page(pages, name, sent, 422, state="over")
    except (StoreUnavailable, TooManyRequests) as error:
        return _page(pages, name, sent, _status(error), state="later")
    except TristoreError as error:
        return _page(pages, name, sent, _status(error), state="over")
    return _page(pages, name, sent, state="done")


def _status(error: TristoreError) -> int:
    return next(ANSWERS[cls].status for cls in type(error).__mro__ if cls in ANSWERS)


def _page(pages: Templates, name: str, of: Opened, status: int = 200, *, state: str = "asks") -> HTMLResponse:
    """`state`: asks, done, weak (another password is needed), over (the link opens nothing any more), later."""
    token: SecretStr = of.token
    html = pages.render(name, of.language, "html", token=token.get_secret_value(), spoken=of.language, state=state)
    return HTMLResponse(html, status, {"Content-Security-Policy": POLICY})
