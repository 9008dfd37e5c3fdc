"""Runs last: see tests/conftest.py."""

import secrets

import httpx
import pytest
import structlog

from tests.product.people import register
from tristore.testing.lab import Lab
from tristore.testing.log_of_run import LOG, SECRETS, secrets_in

ONE_OF_EACH = {
    "password": "wrong: correct horse 9",
    "password hash": "hash=$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA",
    "token": f"Authorization: Bearer {secrets.token_urlsafe(32)}",
    "token's hash": f"key=session:{secrets.token_hex(32)}",
    "email": "ana_12ab@Example.com is taken",
    "DSN": "cannot connect to postgresql+asyncpg://127.0.0.1:5432/app",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_of_secret_would_be_found(kind: str) -> None:
    assert [found.partition(":")[0] for found in secrets_in(ONE_OF_EACH[kind])] == [kind]


async def test_nothing_that_was_logged_or_answered_as_an_error_holds_a_secret(
    client: httpx.AsyncClient, lab: Lab
) -> None:
    canary = secrets.token_hex(8)
    structlog.get_logger().warning(canary)
    async with lab.app(APP_NAME=canary) as app:
        headers = await register(app.client)
        await app.client.get("/users/me", headers=headers)
        assert (await app.client.get(f"/{canary}/x")).status_code == 404
    assert (await client.get(f"/{canary}/y")).status_code == 404
    logged = LOG.read_text(errors="replace")
    # Or what follows would prove nothing: of this process and of the other, the log and the answers are there.
    for expected in (f"[warning  ] {canary}", f"/{canary}/x", f"/{canary}/y", "route=/users/me", "[main"):
        assert expected in logged, expected
    assert not secrets_in(logged)
