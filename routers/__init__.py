"""HTTP and nothing else. Every file here is a router of the application: adding one needs no other change."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter

ABOUT = """ChatLingo keeps what learners of a language chat, and the courses that are there for them.

**Sign in.** `POST /users/register` makes an account. `POST /auth/token` takes its name and password as a form, and
gives a token. Send it with each request: `Authorization: Bearer ...`.

**Errors** are problem details (RFC 9457). On 429 and 503 wait as long as `Retry-After` says, and send the same again.
"""
"""What the API's document says of itself, in Markdown."""


def all_routers() -> Iterator[APIRouter]:
    """The `router` of each module in this folder, by name."""
    for module in iter_modules(__path__):
        router: APIRouter = import_module(f"{__name__}.{module.name}").router
        yield router
