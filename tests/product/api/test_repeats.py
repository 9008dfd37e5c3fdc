"""Every write of the API's document is sent twice, the answer to the first lost. The guide says what comes of it."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.product.guide import KEY, OTHER, Repetition, repetition_of, repetitions, silent_about
from tests.product.people import account, register_admin
from tests.product.routes import Operation, operations_of, stock
from tests.product.traces import traces
from tests.samples import ONE_TIME
from tristore.stores.stores import Stores

WRITES = {"post", "put", "patch", "delete"}
GROWS = {"mongodb activity"}
"""What may have more of a user after the repetition of what makes nothing: who does a thing twice has done it twice."""


class Losing(httpx.AsyncBaseTransport):
    """The request is served, and its answer does not arrive."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self.lost: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._transport.handle_async_request(request)
        self.lost.append(answer.status_code)
        raise httpx.ReadError("lost")


@pytest.fixture
async def losing(client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Losing(client._transport), base_url=client.base_url) as losing:
        yield losing


async def writes(client: httpx.AsyncClient) -> list[Operation]:
    document = (await client.get("/openapi.json")).json()
    return [operation for operation in operations_of(document) if operation.method in WRITES]


async def body_of(client: httpx.AsyncClient, operation: Operation, headers: dict[str, str]) -> dict[str, Any] | None:
    if operation.path == "/users/register":
        return account()
    if operation.path == "/auth/token":
        name = (await client.get("/users/me", headers=headers)).json()["username"]
        return {"username": name, "password": account()["password"]}
    return dict(operation.examples[0]) if operation.examples else None


async def what_is_there(stores: Stores, *texts: str) -> Counter[str]:
    """How much each table and collection has of this, but for what is owed and cached."""
    places = await traces(stores, *texts)
    return Counter(place for place in places if not place.startswith(("redis", "postgresql outbox")))


async def test_the_guide_tells_of_each_write_and_of_no_other(client: httpx.AsyncClient) -> None:
    operations = await writes(client)
    assert not (message := silent_about(operations)), message
    assert {name for name in repetitions() if OTHER not in name} <= {operation.name for operation in operations}
    assert all(told.is_replayed == (told.sent == KEY) for told in repetitions().values())


async def test_what_is_repeated_answers_as_the_guide_says(
    client: httpx.AsyncClient, stores: Stores, losing: httpx.AsyncClient
) -> None:
    for operation in [write for write in await writes(client) if write.name not in ONE_TIME]:
        if told := repetition_of(operation):
            await check(operation, told, client, stores, losing)


async def check(
    operation: Operation, told: Repetition, client: httpx.AsyncClient, stores: Stores, losing: httpx.AsyncClient
) -> None:
    headers = await register_admin(client, stores)
    ids, body = await stock(client, headers, headers), await body_of(client, operation, headers)
    mine = [headers["X-User-Id"], body["email"] if operation.path == "/users/register" and body else "no address"]
    if told.sent == "id":
        assert body
        body["id"] = secrets.token_hex(8)
    elif told.sent != "nothing":
        headers[told.sent] = secrets.token_hex(8)
    with pytest.raises(httpx.ReadError):
        await operation.send(losing, headers, ids, body)
    assert isinstance(losing._transport, Losing)
    assert 200 <= losing._transport.lost[-1] < 300, operation.name
    before = await what_is_there(stores, *mine)
    answer = await operation.send(client, headers, ids, body)
    assert answer.status_code == told.status, (
        f"docs/clients.md does not tell what {operation.method.upper()} {operation.path} answers when it is repeated. "
        f"Add a row to its table, or mend the row: {answer.text}"
    )
    assert ("Idempotency-Replayed" in answer.headers) == told.is_replayed, operation.name
    assert str(answer.status_code) in operation.document["responses"]
    grown = (await what_is_there(stores, *mine)) - before
    made = {place: number for place, number in grown.items() if place not in GROWS or told.sent != "nothing"}
    assert list(made.values()) == [1] * ("there is one more" in told.says), (operation.name, grown)
