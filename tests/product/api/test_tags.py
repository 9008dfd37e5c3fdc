"""ETag, If-Match and If-None-Match on profiles, courses and the API's document."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from models.user import TAG
from tests.product.people import account, register
from tests.product.things import new_course
from tristore.models import new_id
from tristore.stores.stores import Stores

Headers = dict[str, str]
MALFORMED = ["", ",", "7", "abc", 'W/"', "W/7", '"7', '"7" "8"', '*, "7"', '"7", *', '"\u00fc"', 'w/"7"']


def if_match(tag: str) -> Headers:
    return {"If-Match": tag}


FORMS: list[Callable[[str], str]] = [
    lambda tag: tag,
    lambda tag: f"W/{tag}",
    lambda tag: f'"other", {tag}',
    lambda tag: f'W/"other" ,\tW/{tag},"a,b"',
    lambda tag: f', ,"other",\t,{tag} ,',
    lambda tag: "*",
]
each_form = pytest.mark.parametrize(
    "form", FORMS, ids=["bare", "weak", "in a list", "in a weak list", "in a list with gaps", "any"]
)


def assert_stale(answer: httpx.Response, current: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json"), answer.text
    assert answer.headers["ETag"] == current


def assert_malformed(answer: httpx.Response, name: str) -> None:
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name), answer.text
    assert "tags in quotes" in answer.json()["errors"][0]["message"]


async def me(client: httpx.AsyncClient, headers: Headers, **more: str) -> httpx.Response:
    return await client.get("/users/me", headers=headers | {name.replace("_", "-"): more[name] for name in more})


async def test_a_tag_is_the_same_wherever_it_is_shown_until_something_changes(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    headers = await register(client)
    first = await me(client, headers)
    await stores.redis.client.flushall()
    assert first.headers["ETag"] == (await me(client, headers)).headers["ETag"] == f'"{TAG}1"'
    tricky = {"bio": '","version":7,', "display_name": ',"version":8,"'}
    changed = await client.patch("/users/me", headers=headers, json=tricky)
    assert (await me(client, headers)).headers["ETag"] == changed.headers["ETag"] == f'"{TAG}2"'


async def test_a_role_is_part_of_what_a_tag_stands_for(client: httpx.AsyncClient, admin: Headers) -> None:
    ana = await register(client)
    before = (await me(client, ana)).headers["ETag"]
    role = {"role": "admin"}
    assert (await client.put(f"/users/{ana['X-User-Id']}/role", headers=admin, json=role)).status_code == 200
    assert (await me(client, ana, If_None_Match=before)).status_code == 200
    assert_stale(await client.patch("/users/me", headers=ana | if_match(before), json={"bio": "x"}), f'"{TAG}2"')


@each_form
async def test_what_the_client_has_is_not_sent_again(client: httpx.AsyncClient, form: Callable[[str], str]) -> None:
    headers = await register(client)
    tag = (await me(client, headers)).headers["ETag"]
    again = await me(client, headers, If_None_Match=form(tag))
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert "content-type" not in again.headers
    assert again.headers["X-Request-Id"]
    await client.patch("/users/me", headers=headers, json={"bio": "x"})
    expected = 304 if form(tag) == "*" else 200
    assert (await me(client, headers, If_None_Match=form(tag))).status_code == expected
    assert (await me(client, {}, If_None_Match=form(tag))).status_code == 401


@pytest.mark.parametrize("bad", MALFORMED)
async def test_a_malformed_field_is_refused_and_named(client: httpx.AsyncClient, admin: Headers, bad: str) -> None:
    course = f"/courses/{(await new_course(client, admin))['id']}"
    before = (await me(client, admin)).json()

    def sent(name: str) -> dict[bytes, bytes]:
        return {key.encode(): value.encode() for key, value in (admin | {name: bad}).items()}

    assert_malformed(await client.get("/users/me", headers=sent("If-None-Match")), "If-None-Match")
    assert_malformed(await client.get("/openapi.json", headers=sent("If-None-Match")), "If-None-Match")
    assert_malformed(await client.patch("/users/me", headers=sent("If-Match"), json={"bio": "x"}), "If-Match")
    assert_malformed(await client.patch(course, headers=sent("If-Match"), json={"title": "x"}), "If-Match")
    assert_malformed(await client.delete(course, headers=sent("If-Match")), "If-Match")
    assert (await me(client, admin)).json() == before
    assert (await client.get(course)).headers["ETag"] == '"1"'


@each_form
async def test_a_profile_is_changed_as_it_was_read(client: httpx.AsyncClient, form: Callable[[str], str]) -> None:
    headers = await register(client)
    tag = (await me(client, headers)).headers["ETag"]
    changed = await client.patch("/users/me", headers=headers | if_match(form(tag)), json={"bio": "x"})
    assert (changed.status_code, changed.headers["ETag"]) == (200, f'"{TAG}2"')
    again = await client.patch("/users/me", headers=headers | if_match(form(tag)), json={"bio": "y"})
    if form(tag) == "*":
        assert again.status_code == 200
    else:
        assert_stale(again, changed.headers["ETag"])
        assert (await me(client, headers)).json() == changed.json()


async def test_a_list_may_stand_on_several_lines(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    tag = (await me(client, headers)).headers["ETag"]

    def on_two_lines(name: str) -> list[tuple[str, str]]:
        return [*headers.items(), (name, '"other"'), (name, tag)]

    assert (await client.get("/users/me", headers=on_two_lines("If-None-Match"))).status_code == 304
    changed = await client.patch("/users/me", headers=on_two_lines("If-Match"), json={"bio": "x"})
    assert changed.status_code == 200


@pytest.mark.parametrize("other", ['""', '"abc"', '"1"', f'"{TAG}01"', f'"{TAG}99999999999999999999999999"', '"\';--"'])
async def test_a_tag_that_was_never_given_matches_nothing(client: httpx.AsyncClient, other: str) -> None:
    headers = await register(client)
    assert_stale(await client.patch("/users/me", headers=headers | if_match(other), json={"bio": "x"}), f'"{TAG}1"')
    assert (await me(client, headers, If_None_Match=other)).status_code == 200


async def test_of_several_changes_of_one_state_one_is_made(client: httpx.AsyncClient, admin: Headers) -> None:
    course = f"/courses/{(await new_course(client, admin))['id']}"
    for path, field in (("/users/me", "display_name"), (course, "title")):
        tag = (await client.get(path, headers=admin)).headers["ETag"]
        headers = admin | if_match(tag)
        changes = (client.patch(path, headers=headers, json={field: f"n{i}"}) for i in range(8))
        answers = await asyncio.gather(*changes)
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 7}
        [made] = [answer for answer in answers if answer.status_code == 200]
        now = await client.get(path, headers=admin)
        assert (now.json()[field], now.headers["ETag"]) == (made.json()[field], made.headers["ETag"])
        assert {answer.headers["ETag"] for answer in answers} == {made.headers["ETag"]}


async def test_what_is_stale_is_told_before_what_is_taken(client: httpx.AsyncClient) -> None:
    taken = account()
    await client.post("/users/register", json=taken)
    headers = await register(client)
    tag = (await me(client, headers)).headers["ETag"]
    name = {"username": taken["username"]}
    assert_stale(await client.patch("/users/me", headers=headers | if_match('"old"'), json=name), tag)
    assert (await client.patch("/users/me", headers=headers | if_match(tag), json=name)).status_code == 409
    assert (await me(client, headers)).headers["ETag"] == tag


async def test_a_course_has_its_tag_wherever_it_is_shown(client: httpx.AsyncClient, admin: Headers) -> None:
    body: dict[str, Any] = {"title": "t", "price_cents": 1, "language": "pt", "level": "A1", "capacity": 2}
    made = await client.post("/courses", headers=admin, json=body)
    path = f"/courses/{made.json()['id']}"
    assert made.headers["ETag"] == (await client.get(path)).headers["ETag"] == '"1"'
    changed = await client.patch(path, headers=admin, json={"price_cents": 3})
    assert changed.headers["ETag"] == (await client.get(path)).headers["ETag"] == '"2"'
    listed = (await client.get("/courses", params={"limit": 1})).json()["items"][0]
    assert (listed["id"], listed["version"]) == (made.json()["id"], 2)


@each_form
async def test_a_course_is_changed_and_deleted_as_it_was_read(
    client: httpx.AsyncClient, admin: Headers, form: Callable[[str], str]
) -> None:
    path = f"/courses/{(await new_course(client, admin))['id']}"
    first = admin | if_match(form('"1"'))
    assert (await client.patch(path, headers=first, json={"title": "x"})).headers["ETag"] == '"2"'
    if form('"1"') != "*":
        assert_stale(await client.patch(path, headers=first, json={"title": "y"}), '"2"')
        assert_stale(await client.delete(path, headers=first), '"2"')
    assert (await client.get(path)).json()["title"] == "x"
    second = admin | if_match(form('"2"'))
    for _ in range(2):  # whoever got no answer asks again
        assert (await client.delete(path, headers=second)).status_code == 204
    assert (await client.patch(path, headers=second, json={"title": "y"})).status_code == 404


@pytest.mark.parametrize("tag", ['"1"', "*"])
async def test_what_does_not_exist_is_not_stale(client: httpx.AsyncClient, admin: Headers, tag: str) -> None:
    path, headers = f"/courses/{new_id()}", admin | if_match(tag)
    assert (await client.patch(path, headers=headers, json={"title": "x"})).status_code == 404
    assert (await client.delete(path, headers=headers)).status_code == 404


async def test_nobody_learns_a_tag_without_the_right(client: httpx.AsyncClient, admin: Headers) -> None:
    path, learner = f"/courses/{(await new_course(client, admin))['id']}", await register(client)
    for headers, status in ((learner, 403), ({}, 401)):
        refused = await client.patch(path, headers=headers | if_match('"9"'), json={"title": "x"})
        assert (refused.status_code, "ETag" in refused.headers) == (status, False)


@each_form
async def test_the_document_is_sent_once(client: httpx.AsyncClient, form: Callable[[str], str]) -> None:
    first = await client.get("/openapi.json")
    assert (first.headers["content-type"], first.headers["Cache-Control"]) == ("application/json", "no-cache")
    assert first.headers["ETag"].startswith('W/"')  # a proxy may compress it
    known = form(first.headers["ETag"].removeprefix("W/"))
    again = await client.get("/openapi.json", headers={"If-None-Match": known})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary"):  # RFC 9110, section 15.4.5
        assert again.headers[name] == first.headers[name]
    assert (await client.get("/openapi.json", headers={"If-None-Match": '"other"'})).content == first.content
