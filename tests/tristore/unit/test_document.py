"""The API's document: valid OpenAPI 3.1 whatever routes there are, and told once what follows from what they say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header
from fastapi.sse import EventSourceResponse
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from tristore.http.document import DocumentedAPI
from tristore.http.headers import sends
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems


class Thing(BaseModel):
    name: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
def app() -> DocumentedAPI:
    licence = {"name": "MIT License", "identifier": "MIT"}
    return DocumentedAPI(title="Things", version="1", description="Of things.", license_info=licence, lifespan=lifespan)


def told(app: FastAPI) -> dict[str, Any]:
    document = app.openapi()
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    return document


def test_items_of_a_stream_are_told_in_words_of_3_1(app: DocumentedAPI) -> None:
    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[Thing]:
        yield Thing(name="one")

    @app.get("/lines")
    async def lines() -> AsyncIterator[Thing]:
        yield Thing(name="one")

    paths = told(app)["paths"]
    for path, media_type in (("/events", "text/event-stream"), ("/lines", "application/jsonl")):
        content = paths[path]["get"]["responses"]["200"]["content"][media_type]
        assert content["schema"]["type"] == "string"
        assert "#/components/schemas/Thing" in str(content["x-itemSchema"])


def test_a_header_that_a_route_sends_is_told_once_for_all(app: DocumentedAPI) -> None:
    @app.post("/things", status_code=201, responses=problems(409) | {201: sends("Location", "ETag")})
    async def make(thing: Thing, key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> Thing:
        return thing

    document = told(app)
    responses = document["paths"]["/things"]["post"]["responses"]
    assert responses["201"]["headers"].keys() == {"Location", "ETag", "X-Request-Id", "Idempotency-Replayed"}
    assert responses["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert responses["409"]["headers"].keys() == {"Retry-After", "X-Request-Id"}
    used = {"Location", "Accept", "ETag", "X-Request-Id", "Retry-After", "Idempotency-Replayed"}
    assert document["components"]["headers"].keys() == used


def test_a_header_that_nobody_knows_is_refused(app: DocumentedAPI) -> None:
    @app.get("/things", responses={200: sends("X-Unheard-Of")})
    async def read() -> Thing:
        return Thing(name="one")

    with pytest.raises(KeyError, match="X-Unheard-Of"):
        app.openapi()


def test_what_may_be_left_out_is_not_nullable(app: DocumentedAPI) -> None:
    @app.get("/things")
    async def read(after: int | None = None, either: int | str | None = None) -> Thing:
        return Thing(name="one")

    after, either = told(app)["paths"]["/things"]["get"]["parameters"]
    assert (after["required"], after["schema"]) == (False, {"type": "integer", "title": "After"})
    assert either["schema"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]


def test_security_is_said_also_where_nobody_signs_in(app: DocumentedAPI) -> None:
    @app.get("/things")
    async def read() -> Thing:
        return Thing(name="one")

    operation = told(app)["paths"]["/things"]["get"]
    assert operation["security"] == []
    assert not operation["responses"].keys() & {"401", "429", "503"}


def test_tags_are_told_by_their_routers(app: DocumentedAPI) -> None:
    router = PrefixedRouter(prefix="/things", tags=["things"], about="What there is.")

    @router.get("")
    async def read() -> Thing:
        return Thing(name="one")

    app.include_router(router)
    app.include_router(PrefixedRouter(prefix="/things", tags=["things"]))  # a second one need not say it again
    assert told(app)["tags"] == [{"name": "things", "description": "What there is."}]
