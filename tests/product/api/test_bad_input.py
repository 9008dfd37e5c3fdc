"""Each field of each route with what it must not hold: a 4xx that names the field, never a 5xx, never an echo."""

from typing import Any

import httpx
import pytest

from tests.product.bad_input import BAD_TEXT, JSON, SECRET, assert_names, send
from tests.product.people import account, register

BAD_METADATA: dict[str, Any] = {
    "text": SECRET,
    "list": [],
    "null": None,
    "not a number": {"a": float("nan")},
    "infinity": {"a": [float("inf")]},
    "huge number": {"a": 2**63},
    "NUL in a value": {"a": "\x00"},
    "NUL in a key": {"\x00": 1},
    "surrogate in a value": {"a": {"b": "\udfff"}},
    "operator": {"$where": "1"},
    "dotted": {"a.b": 1},
    "deep": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}},
    "wide": {str(i): i for i in range(100)},
}
TEXT_FIELDS = [
    ("POST", "/users/register", "username"),
    ("POST", "/users/register", "email"),
    ("POST", "/users/register", "password"),
    ("POST", "/users/register", "language_preference"),
    ("POST", "/users/register", "cefr_level"),
    ("PATCH", "/users/me", "username"),
    ("PATCH", "/users/me", "email"),
    ("PATCH", "/users/me", "language"),
    ("PATCH", "/users/me", "level"),
    ("PATCH", "/users/me", "display_name"),
    ("PATCH", "/users/me", "bio"),
    ("POST", "/conversations", "title"),
    ("POST", "/conversations/{id}/messages", "id"),
    ("POST", "/conversations/{id}/messages", "role"),
    ("POST", "/conversations/{id}/messages", "content"),
]
ALLOWED = {("empty", "bio"), ("blank", "bio"), ("blank", "content"), ("too long", "content")}


def valid(path: str) -> dict[str, Any]:
    if path == "/users/register":
        return account()
    return {"content": "hi"} if path.endswith("messages") else {}


@pytest.mark.parametrize(("method", "path", "field"), TEXT_FIELDS)
async def test_bad_text_names_its_field(client: httpx.AsyncClient, method: str, path: str, field: str) -> None:
    for kind, bad in BAD_TEXT.items():
        if (kind, field) not in ALLOWED:
            assert_names(await send(client, method, path, {**valid(path), field: bad}), field)


async def test_a_message_that_is_too_long_names_its_field(client: httpx.AsyncClient) -> None:
    assert_names(await send(client, "POST", "/conversations/{id}/messages", {"content": "x" * 20_001}), "content")


@pytest.mark.parametrize("kind", BAD_METADATA)
async def test_bad_metadata_names_its_field(client: httpx.AsyncClient, kind: str) -> None:
    body = {"content": "hi", "metadata": BAD_METADATA[kind]}
    assert_names(await send(client, "POST", "/conversations/{id}/messages", body), "metadata")


@pytest.mark.parametrize("bad", ["x", "", "-1", "1e3", "1.5", str(2**63), str(10**40), "\x00", "NaN", "0x1"])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/conversations", "limit"),
        ("/conversations", "cursor"),
        ("/conversations/{id}", "messages"),
        ("/conversations/{id}/messages", "limit"),
        ("/conversations/{id}/messages", "after_seq"),
        ("/conversations/{id}/messages", "before_seq"),
    ],
)
async def test_bad_query_names_its_parameter(client: httpx.AsyncClient, path: str, name: str, bad: str) -> None:
    headers = await register(client)
    made = await client.post("/conversations", headers=headers, json={"title": "t"})
    answer = await client.get(path.replace("{id}", made.json()["id"]), headers=headers, params={name: bad})
    assert_names(answer, name)


@pytest.mark.parametrize("bad", ["x", "%00", "123", "%ed%a0%80", "z" * 5000])
@pytest.mark.parametrize("path", ["/users/{}", "/conversations/{}", "/conversations/{}/messages"])
async def test_a_bad_id_in_the_path_is_refused(client: httpx.AsyncClient, path: str, bad: str) -> None:
    answer = await client.get(path.format(bad), headers=await register(client))
    assert answer.status_code in {404, 414, 422}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
@pytest.mark.parametrize(("method", "path"), sorted({(method, path) for method, path, _ in TEXT_FIELDS}))
async def test_a_body_that_is_no_object_is_refused(
    client: httpx.AsyncClient, method: str, path: str, body: bytes
) -> None:
    headers = await register(client) | JSON
    path = path.replace("{id}", headers["X-User-Id"])
    answer = await client.request(method, path, headers=headers, content=body)
    assert answer.status_code in {400, 413, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), sorted({(method, path) for method, path, _ in TEXT_FIELDS}))
async def test_an_unknown_field_is_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert_names(await send(client, method, path, {**valid(path), "rogue": SECRET}), "rogue")
    assert (await send(client, method, path, {**valid(path), "\ud800": SECRET})).status_code == 422


async def test_an_empty_change_is_refused(client: httpx.AsyncClient) -> None:
    assert (await send(client, "PATCH", "/users/me", {})).status_code == 422
