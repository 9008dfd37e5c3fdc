"""No secret is in what a run of the tests logs: tests/conftest.py looks at the end. Here it proves that it sees."""

import secrets
from pathlib import Path

import httpx
import pytest
import structlog

from tests.inner_run import start_pytest
from tests.product.people import register
from tests.under_test import SECRETS, Lab
from tristore.testing import log_of_run
from tristore.testing.log_of_run import secrets_in

ONE_OF_EACH = {
    "password": "wrong: correct horse 9",
    "password hash": "hash=$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA",
    "token": f"Authorization: Bearer {secrets.token_urlsafe(32)}",
    "token's hash": f"key=session:{secrets.token_hex(32)}",
    "email": "ana_12ab@Example.com is taken",
    "DSN": "cannot connect to postgresql+asyncpg://127.0.0.1:5432/app",
}
ONE_LEAKS = """
import pytest, structlog

@pytest.mark.parametrize("number", range(4))
def test_may_leak(number):
    if number == 2:
        structlog.get_logger("tristore").info("not the password")
"""


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_of_secret_would_be_found(kind: str) -> None:
    assert [found.partition(":")[0] for found in secrets_in(ONE_OF_EACH[kind], SECRETS)] == [kind]


async def test_the_log_has_what_this_process_and_an_app_log_and_what_both_answer_as_errors(
    client: httpx.AsyncClient, lab: Lab
) -> None:
    canary = secrets.token_hex(8)
    structlog.get_logger().warning(canary)
    async with lab.app(APP_NAME=canary) as app:
        headers = await register(app.client)
        await app.client.get("/users/me", headers=headers)
        assert (await app.client.get(f"/{canary}/x")).status_code == 404
    assert (await client.get(f"/{canary}/y")).status_code == 404
    logged = log_of_run.path().read_text(errors="replace")
    for expected in (f"[warning  ] {canary}", f"/{canary}/x", f"/{canary}/y", "route=/users/me", "[main"):
        assert expected in logged, expected


async def test_a_run_in_which_a_worker_logs_a_secret_fails(tmp_path: Path) -> None:
    run = await start_pytest(ONE_LEAKS, tmp_path, "-n2")
    printed, _ = await run.communicate()
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert b"4 passed" in printed
    assert b"password: " in printed
