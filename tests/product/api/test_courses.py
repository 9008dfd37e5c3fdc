"""Courses through the API, checked on the stores themselves."""

from typing import Any

import httpx
import pytest

from models.course import EXAMPLE
from tests.product.people import register
from tests.product.things import count, new_course
from tristore.models import new_id
from tristore.stores.stores import Stores

SHOWN = {*EXAMPLE, "id", "created_at", "updated_at"}
BAD: dict[str, list[Any]] = {
    "title": [None, "", " ", "x" * 201, "\x00", 7],
    "description": [None, "x" * 5001, "\x00", ["x"]],
    "price_cents": [None, -1, 100_000_001, 10**30, 1e300, 1.5, "5", True],
    "language": [None, "", "Portuguese", 7],
    "level": [None, "", "D1", 1],
    "capacity": [None, -1, 1_000_001, 10**30, 0.5, "5", True],
}
SQL = "SELECT count(*) FROM courses"


async def test_a_new_course_is_there_for_anyone(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await new_course(client, admin, capacity=20.0)
    assert made.keys() >= SHOWN
    assert made.items() >= EXAMPLE.items()
    assert (await client.get(f"/courses/{made['id']}")).json() == made
    assert (await client.get("/courses", params={"limit": 1})).json()["items"] == [made]


async def test_pages_are_newest_first_and_tell_how_many_there_are(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]
) -> None:
    made = [(await new_course(client, admin, title=f"t{i}"))["title"] for i in range(5)]
    living = await count(stores, f"{SQL} WHERE NOT is_deleted")

    async def page(skip: int, limit: int) -> list[str]:
        answer = (await client.get("/courses", params={"skip": skip, "limit": limit})).json()
        assert answer["total"] == living
        return [course["title"] for course in answer["items"]]

    assert await page(0, 2) + await page(2, 3) == made[::-1]
    assert await page(living, 10) == []


@pytest.mark.parametrize(("name", "bad"), [("skip", "-1"), ("skip", "100001"), ("limit", "0"), ("limit", "101")])
async def test_a_page_is_bounded(client: httpx.AsyncClient, name: str, bad: str) -> None:
    answer = await client.get("/courses", params={name: bad})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name)


@pytest.mark.parametrize("field", EXAMPLE)
async def test_changes_what_was_sent_and_keeps_the_rest(
    client: httpx.AsyncClient, admin: dict[str, str], field: str
) -> None:
    other = {"title": "t", "description": "", "price_cents": 0, "language": "en", "level": "B1", "capacity": 21}
    before = await new_course(client, admin)
    after = (await client.patch(f"/courses/{before['id']}", headers=admin, json={field: other[field]})).json()
    assert after == (await client.get(f"/courses/{before['id']}")).json()
    assert after[field] == other[field]
    assert {name for name in SHOWN if after[name] != before[name]} == {field, "updated_at"}


@pytest.mark.parametrize("field", EXAMPLE)
async def test_bad_values_name_their_field_and_change_nothing(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str], field: str
) -> None:
    course = await new_course(client, admin)
    before = await count(stores, SQL)
    for bad in BAD[field]:
        for answer, name in (
            (await client.post("/courses", headers=admin, json=EXAMPLE | {field: bad}), field),
            (await client.patch(f"/courses/{course['id']}", headers=admin, json={"level": "C2", field: bad}), field),
            (await post_batch(client, admin, [EXAMPLE, EXAMPLE | {field: bad}]), f"courses.1.{field}"),
        ):
            assert answer.status_code == 422, (bad, answer.text)
            assert [error["field"] for error in answer.json()["errors"]] == [name]
    assert (await client.get(f"/courses/{course['id']}")).json() == course
    assert await count(stores, SQL) == before
    assert (await client.patch(f"/courses/{course['id']}", headers=admin, json={})).status_code == 422


async def post_batch(client: httpx.AsyncClient, admin: dict[str, str], rows: list[Any]) -> httpx.Response:
    return await client.post("/courses/batch", headers=admin, json={"courses": rows})


async def test_a_batch_is_added_in_its_order(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    rows = [EXAMPLE | {"title": f"t{i}", "capacity": i} for i in range(100)]
    answer = await post_batch(client, admin, rows)
    assert answer.status_code == 201, answer.text
    made = answer.json()["items"]
    assert [(course["title"], course["capacity"]) for course in made] == [(f"t{i}", i) for i in range(100)]
    assert (await client.get("/courses", params={"limit": 100})).json()["items"] == made[::-1]


async def test_a_batch_with_bad_rows_names_them_all_and_adds_nothing(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]
) -> None:
    before = await count(stores, SQL)
    rows = [EXAMPLE, EXAMPLE | {"title": ""}, EXAMPLE, {**EXAMPLE, "capacity": -1, "rogue": 1}, 7]
    answer = await post_batch(client, admin, rows)
    assert answer.status_code == 422
    fields = {error["field"] for error in answer.json()["errors"]}
    assert fields == {"courses.1.title", "courses.3.capacity", "courses.3.rogue", "courses.4"}
    for count_of_rows in (0, 101):
        assert (await post_batch(client, admin, [EXAMPLE] * count_of_rows)).status_code == 422
    assert await count(stores, SQL) == before


async def test_a_deleted_course_is_kept_but_out_of_sight(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]
) -> None:
    kept, gone = await new_course(client, admin), await new_course(client, admin)
    total = (await client.get("/courses")).json()["total"]
    path = f"/courses/{gone['id']}"
    assert (await client.delete(path, headers=admin)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.patch(path, headers=admin, json={"title": "t"})).status_code == 404
    assert (await client.delete(path, headers=admin)).status_code == 204
    assert (await client.delete(f"/courses/{new_id()}", headers=admin)).status_code == 404
    page = (await client.get("/courses", params={"limit": 1})).json()
    assert page == {"items": [kept], "total": total - 1}
    assert await count(
        stores, f"{SQL} WHERE id = :id AND is_deleted AND title = :title", id=gone["id"], title=gone["title"]
    )


async def test_only_admins_change_courses(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    learner = await register(client)
    path = f"/courses/{(await new_course(client, admin))['id']}"
    for answer in (
        await client.post("/courses", headers=learner, json=EXAMPLE),
        await post_batch(client, learner, [EXAMPLE]),
        await client.patch(path, headers=learner, json={"title": "t"}),
        await client.delete(path, headers=learner),
    ):
        assert answer.status_code == 403
    assert (await client.get(path, headers=learner)).json()["title"] == EXAMPLE["title"]


async def test_an_unknown_course_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/courses/{new_id()}")).status_code == 404
