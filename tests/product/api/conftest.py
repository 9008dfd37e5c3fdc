"""What holds for all tests of the API."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from config import Settings
from database.stores import open_stores
from main import create_app
from tests.product.for_user import REFUSED, demand_locks
from tests.product.mails import PUBLIC_URL
from tests.product.unanswered import Unanswered
from tests.under_test import fresh_databases
from tristore.stores.stores import Stores
from tristore.testing.mail import LetterBox, letter_box
from tristore.testing.stores import Servers, client_of
from tristore.testing.traces import Kept, traced

_watched: dict[AsyncEngine, list[str]] = {}


@pytest.fixture(autouse=True)
async def tables_of_users(stores: Stores) -> AsyncIterator[list[str]]:
    """The tables that refer to users. Fails when the service writes for a user without a lock on the user."""
    engine = stores.postgres.engine
    if engine not in _watched:
        _watched[engine] = await demand_locks(engine)
    REFUSED.clear()
    yield _watched[engine]
    assert REFUSED == []


@pytest.fixture
async def alone(servers: Servers) -> AsyncIterator[tuple[httpx.AsyncClient, Stores]]:
    """On databases of its own: elsewhere other tests have made users and admins."""
    async with fresh_databases(servers, postgres_request_deadline=10) as settings, open_stores(settings) as stores:
        async with client_of(create_app(settings, stores)) as client:
            yield client, stores


@pytest.fixture(scope="module")
async def box() -> AsyncIterator[LetterBox]:
    async with letter_box() as box:
        yield box


@pytest.fixture(scope="module")
def mail_settings() -> dict[str, Any]:
    """Others that a module wants."""
    return {}


@pytest.fixture(scope="module")
async def mailing(servers: Servers, box: LetterBox, mail_settings: dict[str, Any]) -> AsyncIterator[Settings]:
    own = {"mail_dsn": box.dsn, "public_url": PUBLIC_URL, "outbox_poll_seconds": 0.05, "postgres_request_deadline": 10}
    async with fresh_databases(servers, **own, **mail_settings) as settings:
        yield settings


@pytest.fixture(scope="module")
async def mail_stores(mailing: Settings) -> AsyncIterator[Stores]:
    async with open_stores(mailing) as stores:
        yield stores


@pytest.fixture
async def mailed(mailing: Settings, mail_stores: Stores, box: LetterBox) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service that sends mail into the box."""
    box.clear()
    async with client_of(create_app(mailing, mail_stores)) as client:
        yield client


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")  # the application's wish; the spans stay here
    with traced() as kept:
        yield kept


@pytest.fixture(autouse=True)
def unanswered() -> Iterator[list[str]]:
    """The errors that became a response with status 500. Fails when there are any, and shows their words."""
    handler = Unanswered()
    logger = logging.getLogger("access")
    logger.addHandler(handler)
    yield handler.errors
    logger.removeHandler(handler)
    assert not handler.errors, "The service failed and answered 500. " + "\n".join(handler.errors)
