"""Traces of requests, from the route to what is done for it later."""

from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from config import Settings
from main import create_app
from tests.product.people import account, register
from tests.under_test import SECRETS
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.log_of_run import secrets_in
from tristore.testing.stores import client_of
from tristore.testing.traces import Kept, context_of, traced


@pytest.fixture(params=["pymongo", "motor"])
async def watched(request: pytest.FixtureRequest, kept: Kept, settings: Settings) -> AsyncIterator[Stores]:
    async with open_stores(settings.model_copy(update={"mongodb_driver": request.param})) as stores:
        yield stores


async def test_a_request_its_calls_and_what_is_delivered_later_name_each_other(
    kept: Kept, settings: Settings, watched: Stores
) -> None:
    # No effect is applied at once: the time is over when one waits for the first time. With an open connection that is
    # right after the command was sent, where PyMongo once lost the end of it.
    late = settings.model_copy(update={"effects_deadline": 1e-4})
    await watched.mongodb.require_migrated()
    async with client_of(create_app(late, watched)) as client:
        assert (await client.post("/users/register", json=account())).status_code == 201
        request = kept.one("POST /users/register")
        assert request.kind is SpanKind.SERVER
        assert request.attributes
        assert request.attributes["http.route"] == "/users/register"
        assert request.attributes["http.response.status_code"] == 201
        assert {"INSERT users", "COMMIT", "INSERT outbox_streams"} <= {span.name for span in kept.within(request)}

        def done() -> list[ReadableSpan]:
            later = kept.because_of(context_of(request))
            return [span for span in later if span.status.status_code is StatusCode.UNSET]

        async def is_delivered() -> bool:
            return {"apply CreateConversation", "apply RecordActivity"} <= {span.name for span in done()}

        await until(is_delivered, 20)
    for delivery in kept.because_of(context_of(request)):
        assert delivery.kind is SpanKind.CONSUMER
        assert context_of(delivery).trace_id != context_of(request).trace_id
    for delivery in done():
        assert {span.attributes["db.system.name"] for span in kept.within(delivery) if span.attributes} == {"mongodb"}


async def test_no_span_has_a_value(kept: Kept, settings: Settings, watched: Stores) -> None:
    async with client_of(create_app(settings, watched)) as client:
        body = account()
        headers = await register(client, **body)
        assert (await client.post("/users/register", json=body)).status_code == 409
        assert (await client.post("/users/register", json=body | {"password": "short"})).status_code == 422
        await client.post("/auth/token", data={"username": body["username"], "password": "not the password"})
        user_id = headers["X-User-Id"]
        for path in ("/users/me", f"/users/{user_id}", f"/users/me/activity?limit=3&q={body['username']}"):
            await client.get(path, headers=headers)
        titled = await client.post("/conversations", json={"title": "battery staple 7"}, headers=headers)
    assert kept.named("GET /users/{user_id}")
    text = kept.text()
    assert secrets_in(text, SECRETS) == []
    mine = (body["username"], user_id, titled.json()["id"], headers["Authorization"].split()[1])
    assert [value for value in mine if value.lower() in text.lower()] == []


async def test_calls_to_all_three_stores_are_spans_of_their_request(
    kept: Kept, settings: Settings, watched: Stores
) -> None:
    async with client_of(create_app(settings, watched)) as client:
        headers = await register(client)
        await watched.redis.client.flushall()
        await client.get("/users/me", headers=headers)
        await client.get("/conversations", headers=headers)
    systems = {
        str(span.attributes["db.system.name"])
        for span in kept.all()
        if span.attributes and "db.system.name" in span.attributes
    }
    assert systems == {"postgresql", "redis", "mongodb"}
    [listed] = kept.named("GET /conversations")
    assert "find conversations" in {span.name for span in kept.within(listed)}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/metrics"])
async def test_probes_and_scrapes_are_not_traced(kept: Kept, settings: Settings, stores: Stores, path: str) -> None:
    async with client_of(create_app(settings, stores)) as client:
        assert (await client.get(path)).status_code == 200
        assert [span for span in kept.all() if span.kind is SpanKind.SERVER] == []


async def test_a_request_goes_on_with_the_trace_of_who_asks(kept: Kept, settings: Settings, stores: Stores) -> None:
    asking = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with client_of(create_app(settings, stores)) as client:
        assert (await client.get("/courses", headers=asking)).status_code == 200
    asked = kept.one("GET /courses")
    assert context_of(asked).trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert asked.parent
    assert asked.parent.span_id == 0xB7AD6B7169203331


async def test_while_traces_are_off_no_request_is_a_span(settings: Settings, stores: Stores) -> None:
    with traced() as kept:
        async with client_of(create_app(settings, stores)) as client:
            assert (await client.get("/courses")).status_code == 200
    assert [span for span in kept.all() if span.kind is SpanKind.SERVER] == []


async def test_a_failing_request_tells_no_text_of_its_error(
    kept: Kept, settings: Settings, stores: Stores, unanswered: list[str]
) -> None:
    app = create_app(settings, stores)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret of somebody")

    async with client_of(app) as client:
        assert (await client.get("/broken")).status_code == 500
    unanswered.clear()
    failed = kept.one("GET /broken")
    assert failed.status.status_code is StatusCode.ERROR
    assert "a secret of somebody" not in kept.text()
