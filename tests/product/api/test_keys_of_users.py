"""Idempotency keys on what signed-in users make."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from models.course import EXAMPLE
from tests.product.keys import key
from tests.product.people import register, register_admin
from tests.product.things import count
from tristore.stores.stores import Stores

Answers = list[httpx.Response]
COURSES = "SELECT count(*) FROM courses WHERE title = :title"
MAKERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/conversations", {"title": "t"}, {"title": "u"}),
    ("/courses", EXAMPLE, EXAMPLE | {"title": "u"}),
    ("/courses/batch", {"courses": [EXAMPLE, EXAMPLE]}, {"courses": [EXAMPLE]}),
]
each_maker = pytest.mark.parametrize(("path", "body", "other"), MAKERS, ids=[path for path, _, _ in MAKERS])


def marks(*answers: httpx.Response) -> list[str | None]:
    return [answer.headers.get("Idempotency-Replayed") for answer in answers]


@each_maker
async def test_the_same_key_and_body_make_one(
    client: httpx.AsyncClient, admin: dict[str, str], path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    headers = admin | key()
    first, second = [await client.post(path, headers=headers, json=body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert marks(first, second) == [None, "true"]
    without = await client.post(path, headers=admin, json=body)
    assert without.json() != first.json()


@each_maker
async def test_the_same_key_with_another_body_is_refused(
    client: httpx.AsyncClient, admin: dict[str, str], path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    headers = admin | key()
    assert (await client.post(path, headers=headers, json=body)).status_code == 201
    refused = await client.post(path, headers=headers, json=other)
    said = [{"field": "Idempotency-Key", "message": "was already used for another request"}]
    assert (refused.status_code, refused.json()["errors"], marks(refused)) == (422, said, [None])


@each_maker
async def test_a_key_belongs_to_one_user_and_one_route(
    client: httpx.AsyncClient,
    stores: Stores,
    admin: dict[str, str],
    path: str,
    body: dict[str, Any],
    other: dict[str, Any],
) -> None:
    sent, another = key(), await register_admin(client, stores)
    answers = [await client.post(path, headers=admin | sent, json=body)]
    answers.append(await client.post(path, headers=another | sent, json=body))
    elsewhere = {"/conversations": ("/courses", EXAMPLE)}.get(path, ("/conversations", {"title": "t"}))
    answers.append(await client.post(elsewhere[0], headers=admin | sent, json=elsewhere[1]))
    assert ([answer.status_code for answer in answers], marks(*answers)) == ([201] * 3, [None] * 3)
    assert answers[0].json() != answers[1].json()


@each_maker
async def test_twenty_at_once_make_one(
    client: httpx.AsyncClient, admin: dict[str, str], path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    headers = admin | key()
    answers = await asyncio.gather(*(client.post(path, headers=headers, json=body) for _ in range(20)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    assert [mark for answer in answers if answer.status_code == 201 for mark in marks(answer)].count(None) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert ("in progress" in answer.json()["detail"], answer.headers["Retry-After"]) == (True, "1")
    settled = await client.post(path, headers=headers, json=body)
    assert (settled.status_code, marks(settled)) == (201, ["true"])


@pytest.mark.parametrize("bad", ["", "x" * 256, "ü", '"a'])
@each_maker
async def test_a_key_that_is_none_is_refused_and_makes_nothing(
    client: httpx.AsyncClient,
    stores: Stores,
    admin: dict[str, str],
    path: str,
    body: dict[str, Any],
    other: dict[str, Any],
    bad: str,
) -> None:
    before = await count(stores, "SELECT count(*) FROM courses")
    headers = {name.encode(): value.encode() for name, value in (admin | {"Idempotency-Key": bad}).items()}
    answer = await client.post(path, headers=headers, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert await count(stores, "SELECT count(*) FROM courses") == before
    assert len((await client.get("/conversations", headers=admin)).json()["items"]) == 1  # that of the welcome


async def test_a_replayed_conversation_is_as_it_is_by_now(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    keyed = headers | key()
    made = (await client.post("/conversations", headers=keyed, json={"title": "t"})).json()
    path = f"/conversations/{made['id']}"
    renamed = (await client.patch(path, headers=headers, json={"title": "u"})).json()
    again = await client.post("/conversations", headers=keyed, json={"title": "t"})
    assert (again.status_code, again.json()) == (201, renamed)
    assert (await client.post("/conversations", headers=keyed, json={"title": "u"})).status_code == 422
    activity = (await client.get("/users/me/activity", headers=headers)).json()["items"]
    assert [entry["action"] for entry in activity].count("conversation_started") == 1


async def test_a_conversation_that_was_deleted_is_not_started_again(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    keyed = headers | key()
    made = (await client.post("/conversations", headers=keyed, json={"title": "t"})).json()
    assert (await client.delete(f"/conversations/{made['id']}", headers=headers)).status_code == 204
    for title in ("t", "u"):  # what the title was is forgotten
        again = await client.post("/conversations", headers=keyed, json={"title": title})
        assert (again.status_code, "deleted" in again.json()["detail"]) == (409, True)
        assert "Retry-After" not in again.headers
    assert made["id"] not in (await client.get("/conversations", headers=headers)).text
    assert (await client.post("/conversations", headers=headers | key(), json={"title": "t"})).status_code == 201


async def test_a_course_that_was_refused_is_tried_again_with_its_key(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]
) -> None:
    headers, title = admin | key(), key()["Idempotency-Key"]
    assert (await client.post("/courses", headers=headers, json=EXAMPLE | {"level": "D1"})).status_code == 422
    learner = await register(client) | {"Idempotency-Key": headers["Idempotency-Key"]}
    assert (await client.post("/courses", headers=learner, json=EXAMPLE | {"title": title})).status_code == 403
    for _ in range(2):
        assert (await client.post("/courses", headers=headers, json=EXAMPLE | {"title": title})).status_code == 201
    assert await count(stores, COURSES, title=title) == 1
