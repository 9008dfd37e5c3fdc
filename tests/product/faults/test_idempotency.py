"""A repeated request after the first one's process has died."""

import secrets

import pytest

from tests.product.killed import STRIDE, killed_at
from tests.product.people import account
from tests.under_test import Lab
from tristore.testing.lab import App

pytestmark = pytest.mark.timeout(300)


async def test_killed_at_any_call_to_a_store_the_repeated_registration_completes_it(lab: Lab, app: App) -> None:
    died = 0
    for n in range(2, 60, 2 * STRIDE - 1):
        key, body = {"Idempotency-Key": secrets.token_hex(16)}, account()
        if not await killed_at(lab, n, "POST", "/users/register", key, body):
            break
        died += 1
        answers = [await app.client.post("/users/register", headers=key, json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        plain = await app.client.post("/users/register", json=body)
        assert (plain.status_code, plain.json()["field"]) == (409, "username")  # there is exactly that one
    assert died >= 1
