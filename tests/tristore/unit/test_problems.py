"""Errors as problem details."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from tristore.errors import Conflict, NotFound, TristoreError
from tristore.http.problems import Answer, add_error_handlers


class Unpaid(TristoreError):
    """Pay first."""

    def __init__(self, cents: int) -> None:
        super().__init__()
        self.cents = cents


class Sold(Conflict):
    """Somebody else has it."""


class Thing(BaseModel):
    path: int
    body: dict[str, int] = {}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    unpaid = Answer(402, lambda error: {"cents": error.cents}, lambda error: {"X-Pay": "here"})
    add_error_handlers(app, {Unpaid: unpaid})

    @app.get("/unpaid")
    async def raise_unpaid() -> None:
        raise Unpaid(250)

    @app.get("/sold")
    async def raise_sold() -> None:
        raise Sold

    @app.get("/gone")
    async def raise_gone() -> None:
        raise NotFound

    @app.post("/things")
    async def make(thing: Thing) -> None: ...

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_an_error_of_the_product_brings_its_status_title_fields_and_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/unpaid")
    assert (answer.status_code, answer.headers["X-Pay"]) == (402, "here")
    expected = {
        "type": "/problems/unpaid",
        "title": "Payment Required",
        "status": 402,
        "detail": "Pay first.",
        "cents": 250,
    }
    assert expected.items() <= answer.json().items()


@pytest.mark.parametrize(("path", "status", "title"), [("/sold", 409, "Conflict"), ("/gone", 404, "Not Found")])
async def test_an_error_without_an_answer_of_its_own_gets_that_of_its_base(
    client: httpx.AsyncClient, path: str, status: int, title: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["title"]) == (status, title)


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ('{"path": "x", "body": {"header": "y"}}', {"path": "valid integer", "body.header": "valid integer"}),
        ("7", {"body": "valid dictionary"}),
        ("", {"body": "required"}),
        ("{", {"body": "is not JSON at character 1: Expecting property name enclosed in double quotes"}),
        ('{"path": 1} x', {"body": "is not JSON at character 12: Extra data"}),
        ('{"path": 1', {"body": "is not JSON at character 10: Expecting ',' delimiter"}),
    ],
)
async def test_what_is_not_valid_is_named_by_its_own_name(
    client: httpx.AsyncClient, body: str, errors: dict[str, str]
) -> None:
    answer = await client.post("/things", content=body, headers={"Content-Type": "application/json"})
    told = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert (answer.status_code, told.keys()) == (422, errors.keys())
    assert all(message in told[field] for field, message in errors.items()), told
    assert answer.json()["detail"] == f"Not valid: {', '.join(errors)}."


async def test_details_of_the_framework_are_sentences_too(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", content=b"\xff", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "There was an error parsing the body.")
