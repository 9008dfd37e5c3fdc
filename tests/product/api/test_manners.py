"""What HTTP's standards ask of a server, over all routes of the document."""

import re
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from config import Settings
from main import create_app
from tests.product.people import register, register_admin
from tests.product.routes import operations_of, stock
from tests.product.things import post, start_conversation
from tests.samples import PARAMETERS, with_ids
from tristore.errors import TristoreError
from tristore.http.problems import KINDS, kind_of
from tristore.stores.stores import Stores
from tristore.testing.lab import PROJECT
from tristore.testing.stores import client_of

IDS = dict.fromkeys(PARAMETERS, "0190f5c8-0000-7000-8000-000000000000")
PROBES = {"/health", "/health/live", "/health/ready", "/health/startup"}
JSON = {"Content-Type": "application/json"}


async def operations(client: httpx.AsyncClient) -> list[Any]:
    return operations_of((await client.get("/openapi.json")).json())


async def reads(client: httpx.AsyncClient) -> list[Any]:
    """All that have an end: no streams of events."""
    found = [operation for operation in await operations(client) if operation.method == "get"]
    return [read for read in found if "text/event-stream" not in read.document["responses"]["200"]["content"]]


async def test_head_is_what_get_answers_without_its_body(client: httpx.AsyncClient, stores: Stores) -> None:
    owner = await register(client)
    ids = await stock(client, owner, await register_admin(client, stores))
    ours = {"/docs", "/openapi.json", "/metrics", "/nowhere"}
    paths = {with_ids(operation.path, ids) for operation in await reads(client)}
    for path in paths | ours:
        get, head = [await client.request(method, path, headers=owner) for method in ("GET", "HEAD")]
        assert (head.status_code, head.content) == (get.status_code, b""), path
        same = {"content-type", "content-disposition", "allow", "cache-control"}
        assert {name: head.headers.get(name) for name in same} == {name: get.headers.get(name) for name in same}, path


async def test_no_answer_says_which_host_was_asked(client: httpx.AsyncClient, stores: Stores) -> None:
    """Whoever chooses it could lead others to a host of theirs, by an answer that is kept or sent on."""
    owner, admin = await register(client), await register_admin(client, stores)
    ids = await stock(client, owner, admin)
    strange = {"Host": "strange.example:8443", "X-Forwarded-Host": "strange.example"}
    asked = [operation for operation in await operations(client) if not operation.has_no_end]
    last = {("delete", "/users/me"), ("post", "/auth/logout"), ("post", "/auth/logout-all")}
    last |= {("delete", "/auth/sessions/{session_id}"), ("delete", "/users/{user_id}/sessions")}
    for who in (admin, owner, {}):
        for operation in sorted(asked, key=lambda operation: operation.name in last):
            answer = await operation.send(client, who | strange, ids)
            told = f"{answer.status_code} {answer.headers} {answer.text}"
            assert "strange" not in told, operation.name
            beside = await client.get(with_ids(operation.path, ids) + "/", headers=who | strange)
            assert "strange" not in f"{beside.headers} {beside.text}", operation.name
    for path in ("/docs", "/openapi.json", "/metrics", "/nowhere", "//", "/users/me?x"):
        for method in ("GET", "OPTIONS", "TRACE"):
            answer = await client.request(method, path, headers=strange)
            assert "strange" not in f"{answer.headers} {answer.text}", path


async def test_nothing_is_read_of_a_request_that_may_not_come_in(client: httpx.AsyncClient) -> None:
    told = [operation for operation in await operations(client) if operation.document["security"]]
    for operation in told:
        path = with_ids(operation.path, IDS)
        for how in (
            {"params": {"unknown": "1"}},
            {"content": b"{", "headers": JSON},
            {"content": b"x", "headers": {"Content-Type": "text/plain"}},
        ):
            answer = await client.request(operation.method, path, **how)
            assert answer.status_code == 401, (operation.name, how)


async def test_a_parameter_that_is_not_known_or_sent_twice_is_refused_except_by_probes(
    client: httpx.AsyncClient,
) -> None:
    headers = await register(client)
    for operation in await operations(client):
        path = with_ids(operation.path, IDS)
        answer = await client.request(operation.method, path, params={"unknwon": "1"}, headers=headers)
        if operation.path in PROBES:
            assert answer.status_code == 200
            continue
        assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["unknwon"])
        for parameter in operation.document.get("parameters", ()):
            if parameter["in"] == "query":
                twice = {parameter["name"]: ["1", "1"]}
                answer = await client.request(operation.method, path, params=twice, headers=headers)
                error = {"field": parameter["name"], "message": "must not be sent twice"}
                assert (answer.status_code, answer.json()["errors"]) == (422, [error])
    problem = (await client.get("/courses", params={"Limit": "1"})).json()
    assert problem["errors"] == [{"field": "Limit", "message": "is not a parameter here; allowed: skip, limit"}]
    assert problem["detail"] == "Limit is not a parameter here; allowed: skip, limit."


@pytest.mark.parametrize("written", ["1_0", "+1", " 1", "1.0"])
async def test_an_integer_is_written_in_digits(client: httpx.AsyncClient, stores: Stores, written: str) -> None:
    headers = await register_admin(client, stores)
    found = [(read, part) for read in await operations(client) for part in read.document.get("parameters", ())]
    integers = [(read, part["name"], part["in"]) for read, part in found if part["schema"].get("type") == "integer"]
    assert len(integers) > 5
    for operation, name, place in integers:
        query, header = ({name: written}, {}) if place == "query" else ({}, {name: written})
        path = with_ids(operation.path, IDS)
        answer = await client.request(operation.method, path, params=query, headers=headers | header)
        cure = f"{name} of {operation.name} takes {written!r}: add Digits of tristore/http/parameters.py to its type"
        assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [name]), cure


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/xml", "image/x+json", None],
)
async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient, media_type: str | None) -> None:
    headers = await register(client) | ({"Content-Type": media_type} if media_type else {})
    answer = await client.post("/conversations", headers=headers, content=b'{"title": "t"}')
    assert (answer.status_code, answer.headers["Accept"]) == (415, "application/json")
    assert answer.json()["detail"] == "Send the body as application/json."


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
async def test_json_may_be_named_in_other_ways(client: httpx.AsyncClient, media_type: str) -> None:
    headers = await register(client) | {"Content-Type": media_type}
    assert (await client.post("/conversations", headers=headers, content=b'{"title": "t"}')).status_code == 201


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("br", 415), ("gzip, identity", 415), ("Identity", 201)])
async def test_a_body_in_a_coding_is_refused(client: httpx.AsyncClient, coding: str, status: int) -> None:
    headers = await register(client) | JSON | {"Content-Encoding": coding}
    answer = await client.post("/conversations", headers=headers, content=b'{"title": "t"}')
    assert answer.status_code == status
    if status == 415:
        assert (answer.headers["Accept"], answer.headers["Accept-Encoding"]) == ("application/json", "identity")


async def test_without_a_body_its_type_is_no_matter(client: httpx.AsyncClient) -> None:
    answer = await client.post("/conversations", headers=await register(client))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")


@pytest.mark.parametrize("path", ["/a%20b", "/%C3%A9", "/users/%ED%A0%80", "/%3Fa%23b", "/%00", "/a;b=c:~@"])
async def test_the_instance_of_a_problem_is_the_path_as_it_was_asked(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"{path}?b=c", headers=await register(client))
    assert (answer.status_code >= 400, answer.json()["instance"]) == (True, path)


@pytest.mark.parametrize("path", ["/users/me", "/courses", "/health"])
async def test_a_slash_too_many_leads_nowhere(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"{path}/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)
    assert answer.json()["detail"] == f"There is nothing at this path. There is at {path}."


async def test_spaces_after_the_scheme_of_a_token_do_not_count(client: httpx.AsyncClient) -> None:
    token = (await register(client))["Authorization"].removeprefix("Bearer ")
    for form in (f"Bearer  {token}", f"bearer   {token}", f"BEARER {token}"):
        assert (await client.get("/users/me", headers={"Authorization": form})).status_code == 200
    for form in (f"Bearer{token}", f"Bearer {token} x", token, f"Bearer\t{token}"):
        assert (await client.get("/users/me", headers={"Authorization": form})).status_code == 401


async def test_times_have_always_as_many_digits(client: httpx.AsyncClient, stores: Stores) -> None:
    owner = await register(client)
    ids = await stock(client, owner, await register_admin(client, stores))
    await post(client, await start_conversation(client, owner), owner, "x")
    texts = []
    for operation in await reads(client):
        texts.append((await client.get(with_ids(operation.path, ids), headers=owner)).text)
    times = re.findall(r'"(\d{4}-\d\d-\d\dT[^"]*)"', " ".join(texts))
    assert len(times) > 10
    assert [time for time in times if not re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.\d{6}Z", time)] == []


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"username": "nobody-here", "password": "correct horse 9"}, 401, "invalid_grant"),
        ({"username": "nobody-here"}, 422, "invalid_request"),
        ({"grant_type": "implicit", "username": "a", "password": "b"}, 422, "unsupported_grant_type"),
        ({"username": ["a", "b"], "password": "b"}, 422, "invalid_request"),
        ({"username": "a", "password": ["b", "b"]}, 422, "invalid_request"),
    ],
)
async def test_an_oauth_client_reads_why_it_got_no_token(
    client: httpx.AsyncClient, form: dict[str, Any], status: int, error: str
) -> None:
    answer = await client.post("/auth/token", data=form)
    problem = answer.json()
    assert (answer.status_code, problem["error"], problem["status"]) == (status, error, status)
    assert problem["error_description"] == problem["detail"]
    for path, expected in (("/auth/token", "invalid_request"), ("/auth/nothing", None)):
        answer = await client.post(path, json=form)
        assert answer.json().get("error") == expected


async def test_each_kind_of_problem_has_its_name_and_is_explained(client: httpx.AsyncClient) -> None:
    texts = [path.read_text() for path in (PROJECT / "docs").glob("*.md")]
    rows = re.findall(r"`/problems/([a-z-]+)`(?: \| | \()(\d+)", "".join(texts))
    explained = {kind: int(status) for kind, status in rows}
    ours = {kind_of(error) for error in _known_errors(TristoreError)}
    plain = {kind for kind, status in explained.items() if kind not in ours and kind not in KINDS.values()}
    assert ours <= explained.keys()
    assert set(KINDS.values()) <= explained.keys()
    for kind in plain:
        assert HTTPStatus(explained[kind]).phrase.lower().replace(" ", "-") == kind

    answers = [
        await client.get("/nowhere"),
        await client.put("/users/me"),
        await client.get("/users/me"),
        await client.post("/users/register", json={}),
        await client.post("/users/register", content=b"{}"),
        await client.get("/courses", params={"x": "y" * 5000}),
    ]
    for answer in answers:
        problem = answer.json()
        assert problem["title"] == HTTPStatus(answer.status_code).phrase
        assert explained[problem["type"].removeprefix("/problems/")] == answer.status_code
        assert problem["detail"].endswith(".")


def _known_errors(base: type[TristoreError]) -> set[type[TristoreError]]:
    """Those that a request can end with: not what the machinery tells itself."""
    found = set(base.__subclasses__())
    deeper = {error for each in found for error in _known_errors(each)}
    mine = ("tristore.errors", "services.", "repositories.", "models.")
    return {error for error in found | deeper if error.__module__.startswith(mine)}


async def test_a_page_of_another_origin_may_read_what_it_needs(settings: Settings, stores: Stores) -> None:
    origin = "https://app.example.com"
    async with client_of(create_app(settings.model_copy(update={"cors_origins": [origin]}), stores)) as client:
        asked = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        preflight = await client.options(
            "/users/me", headers=asked | {"Access-Control-Request-Headers": "authorization,if-match"}
        )
        assert (preflight.status_code, preflight.headers["Access-Control-Max-Age"]) == (200, "7200")
        others = ("https://evil.example", "null", f"{origin}.evil.example", f"{origin}/", origin.upper())
        for refused in (asked | {"Origin": other} for other in others):
            answer = await client.options("/users/me", headers=refused)
            assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
            assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
            assert "Access-Control-Allow-Origin" not in answer.headers
        for path in ("/courses", "/users/me", "/nowhere"):
            answer = await client.get(path, headers={"Origin": origin})
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
            assert exposed >= {"Retry-After", "Location", "ETag", "X-Request-Id", "Idempotency-Replayed"}
