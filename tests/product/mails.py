"""What tests of mail do: read a link, open it, wait until nothing is owed."""

import re
from typing import Any

import httpx

from tests.product.people import account
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.mail import LetterBox
from tristore.testing.outbox import query

PUBLIC_URL = "https://app.example.org"
VERIFY = "/pages/verify-email"


def token_in(text: str, page: str) -> str:
    found = re.search(rf"^{PUBLIC_URL}{page}\?token=([\w-]{{43}})&language=[\w-]*\r?$", text, re.MULTILINE)
    assert found, text
    return found[1]


async def joined(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = account(**changes)
    assert (await client.post("/users/register", json=body)).status_code == 201
    return body


async def me(client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
    profile: dict[str, Any] = (await client.get("/users/me", headers=headers)).json()
    return profile


async def open_link(client: httpx.AsyncClient, box: LetterBox, address: str, number: int = 0) -> httpx.Response:
    """Verify the address by the link of its mail of this number."""
    token = token_in(box.text(await box.to(address, number=number)), VERIFY)
    return await client.post("/auth/email-verification/confirm", json={"token": token})


async def until_nothing_is_owed(stores: Stores, what: str = "true") -> None:
    async def is_empty() -> bool:
        return not await query(stores, f"SELECT 1 FROM outbox WHERE {what}")

    await until(is_empty, 20)


async def until_no_mail_is_owed(stores: Stores) -> None:
    """Whatever waits for the second pass of an erasure."""
    await until_nothing_is_owed(stores, "store = 'mail'")
