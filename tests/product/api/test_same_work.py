"""What may not tell whether somebody is known does the same work for both, in all three stores: so its time tells
nothing either."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from config import Settings
from database.stores import open_stores
from main import create_app
from tests.product.mails import joined, open_link
from tests.product.people import account, attempt
from tests.product.work import note_transactions, work_of
from tristore.testing.mail import LetterBox
from tristore.testing.stores import client_of
from tristore.testing.traces import Kept

LIMITS = {name: field.default for name, field in Settings.model_fields.items() if name.startswith("rate_limit_")}


@pytest.fixture(scope="module")
def mail_settings() -> dict[str, Any]:
    """With the limits of production, which are counted in Redis. On a busy machine too, all is done at once."""
    patient = {"effects_deadline": 3.5, "mongodb_timeout": 10, "redis_timeout": 5}
    return {"registration_privacy": True, **LIMITS, **patient}


@pytest.fixture
async def traced_client(kept: Kept, mailing: Settings, box: LetterBox) -> AsyncIterator[httpx.AsyncClient]:
    box.clear()
    async with open_stores(mailing) as stores:
        note_transactions(stores)
        async with client_of(create_app(mailing, stores)) as client:
            yield client


async def register(client: httpx.AsyncClient, address: str) -> int:
    return (await client.post("/users/register", json=account(email=address))).status_code


async def ask_reset(client: httpx.AsyncClient, address: str) -> int:
    return (await client.post("/auth/password-reset", json={"email": address})).status_code


Ask = Callable[[httpx.AsyncClient, str], Awaitable[int]]
REQUESTS: dict[str, tuple[Ask, int, set[str]]] = {
    "/users/register": (register, 201, {"INSERT users", "INSERT outbox_streams", "insert conversations"}),
    "/auth/password-reset": (ask_reset, 202, {"SELECT users", "INSERT outbox_streams", "event commit"}),
    "/auth/token": (attempt, 401, {"SELECT users"}),
}


@pytest.mark.parametrize("path", REQUESTS)
async def test_the_same_is_done_for_an_address_that_is_known(
    path: str, traced_client: httpx.AsyncClient, kept: Kept, box: LetterBox
) -> None:
    owner = await joined(traced_client)
    assert (await open_link(traced_client, box, owner["email"])).status_code == 204
    ask, status, expected = REQUESTS[path]
    seen = []
    # The first one loads scripts into Redis.
    for address in (account()["email"], owner["email"], account()["email"]):
        assert await ask(traced_client, address) == status
        seen.append(work_of(kept, kept.named(f"POST {path}")[-1]))
    _, known, unknown = seen
    assert known == unknown
    assert expected | {"EVALSHA"} <= known.keys()
