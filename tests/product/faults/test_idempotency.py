"""A repeated request after the first one's process has died."""

import pytest

from tests.product.keys import key
from tests.product.killed import STRIDE, killed_at
from tests.product.people import account, register
from tests.under_test import Lab
from tristore.testing.lab import App

pytestmark = pytest.mark.timeout(300)


async def test_killed_at_any_call_to_a_store_the_repeated_registration_completes_it(lab: Lab, app: App) -> None:
    died = 0
    for n in range(2, 60, 2 * STRIDE - 1):
        sent, body = key(), account()
        if not await killed_at(lab, n, "POST", "/users/register", sent, body):
            break
        died += 1
        answers = [await app.client.post("/users/register", headers=sent, json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        plain = await app.client.post("/users/register", json=body)
        assert (plain.status_code, plain.json()["field"]) == (409, "username")  # there is exactly that one
    assert died >= 1


async def test_killed_at_any_call_to_a_store_the_repeated_start_of_a_conversation_completes_it(
    lab: Lab, app: App
) -> None:
    headers, died = await register(app.client), 0
    for n in range(1, 40, STRIDE):
        keyed, body = headers | key(), {"title": f"t{n}"}
        if not await killed_at(lab, n, "POST", "/conversations", keyed, body):
            break
        died += 1
        answers = [await app.client.post("/conversations", headers=keyed, json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        items = (await app.client.get("/conversations", headers=headers)).json()["items"]
        assert [item["title"] for item in items].count(body["title"]) == 1
    assert died >= 1
