"""Whatever a body holds, refusing it is cheap: few errors, short names, and no more bytes than its route needs."""

import json
from typing import Any

import httpx
import pytest

from tests.product.people import account, register

LARGEST = "\U0001f600"  # twelve bytes in JSON that is ASCII


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users/register", {str(i): 1 for i in range(1_200)}),
        ("/users/register", account() | {str(i): 1 for i in range(90)}),
        ("/conversations", {str(i): 1 for i in range(18_000)}),
        ("/conversations", {"title": "t", "n" * 200_000: 1}),
    ],
)
async def test_few_errors_are_told_in_few_words(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await client.post(path, json=body, headers=await register(client))
    assert answer.status_code == 422
    assert 1 <= len(answer.json()["errors"]) <= 20
    assert len(answer.content) < 8_000


async def test_how_many_more_errors_there_are_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post("/users/register", json=account() | {f"x{i}": 1 for i in range(30)})
    assert answer.json()["detail"].endswith("x18, x19, and 10 more.")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/users/register", 16_384),
        ("/conversations", 294_912),
        ("/auth/confirm-password", 8192),
        ("/auth/password-reset/confirm", 8192),
    ],
)
async def test_a_route_takes_no_more_than_it_needs(
    client: httpx.AsyncClient, path: str, most: int, chunked: bool
) -> None:
    headers = await register(client) | {"Content-Type": "application/json"}
    for size, status in ((most, 422), (most + 1, 413)):
        body = json.dumps({"x": ""}).encode().ljust(size)

        async def in_chunks(body: bytes = body) -> Any:
            yield body[:9]
            yield body[9:]

        answer = await client.post(path, headers=headers, content=in_chunks() if chunked else body)
        assert answer.status_code == status
    assert answer.json()["detail"] == f"The body of this request may have {most} bytes."


async def test_the_largest_valid_bodies_fit(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    form = {"username": LARGEST * 254, "password": LARGEST * 128, "device": LARGEST * 80}
    assert (await client.post("/auth/token", data=form)).status_code == 401
    profile = {"bio": LARGEST * 1000, "display_name": LARGEST * 80}
    assert (await client.patch("/users/me", headers=headers, json=profile)).status_code == 200
    made = await client.post("/conversations", headers=headers, json={"title": LARGEST * 200})
    metadata = {"a": LARGEST * 4_000}
    message = {"content": LARGEST * 20_000, "metadata": metadata}
    path = f"/conversations/{made.json()['id']}/messages"
    assert len(json.dumps(message)) > 250_000
    assert (await client.post(path, headers=headers, content=json.dumps(message))).status_code == 415
    headers["Content-Type"] = "application/json"
    assert (await client.post(path, headers=headers, content=json.dumps(message))).status_code == 201
    metadata["b"] = "x" * 400
    answer = await client.post(path, headers=headers, content=json.dumps(message))
    assert answer.json()["errors"] == [{"field": "metadata", "message": "must not be larger than 16384 bytes of JSON"}]


async def test_metadata_of_any_depth_is_refused(client: httpx.AsyncClient) -> None:
    """Also at the depths that can be read, and not written again."""
    headers = await register(client) | {"Content-Type": "application/json"}
    made = await client.post("/conversations", headers=headers, json={"title": "t"})
    for depth in (*range(7, 100, 31), *range(800, 1050, 2)):
        nested = "[" * depth + "]" * depth
        body = f'{{"content": "x", "metadata": {{"a": {nested}}}}}'
        answer = await client.post(f"/conversations/{made.json()['id']}/messages", headers=headers, content=body)
        assert answer.status_code in {400, 422}, depth
