"""What Prometheus reads, and who may."""

import httpx
import pytest
from pydantic import SecretStr

from config import Settings
from main import create_app
from tests.product.metrics import SCRAPER, TOKEN, scrape, value
from tests.product.people import register
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.stores import client_of

REQUESTS = "http_server_request_duration_seconds_count"


def labels(method: str, route: str, status: str) -> dict[str, str]:
    return {"http_request_method": method, "http_route": route, "http_response_status_code": status}


async def test_counts_what_the_service_does(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    await client.post("/auth/token", data={"username": headers["X-User-Id"], "password": "not this one"})
    for _ in range(3):
        await client.get("/users/me", headers=headers)
    await client.request("BREW", "/nowhere")
    samples = await scrape(client)
    assert value(samples, REQUESTS, **labels("GET", "/users/me", "200")) == 3
    assert value(samples, REQUESTS, **labels("_OTHER", "none", "404")) == 1
    assert value(samples, "sign_ins_total", event="signed_in") == 1
    assert value(samples, "sign_ins_total", event="wrong") == 1
    assert value(samples, "cache_events_total", event="hit") >= 2  # the near cache may have the others
    assert value(samples, "outbox_events_total", event="applied") >= 2
    for store in ("postgresql", "redis", "mongodb"):
        assert value(samples, "store_up", store=store) == 1
        assert value(samples, "store_pool_connections", store=store, state="size") > 0
    assert value(samples, "outbox_dead") == value(samples, "cache_breakers_open") == 0
    assert ("password_hashing_waiting", frozenset()) in samples
    assert value(samples, "postgresql_schema_current") == 1
    assert value(samples, "sagas_oldest_seconds") == 0


async def test_paths_and_ids_make_no_series(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    await client.get(f"/users/{headers['X-User-Id']}", headers=headers)
    assert headers["X-User-Id"] not in (await client.get("/metrics")).text
    assert value(await scrape(client), REQUESTS, http_route="/users/{user_id}") == 1


async def test_what_is_in_use_shows_while_it_is(client: httpx.AsyncClient, stores: Stores) -> None:
    async with stores.postgres.engine.connect(), stores.mongodb.operation():
        samples = await scrape(client)
    assert value(samples, "store_pool_connections", store="postgresql", state="in_use") >= 1
    assert value(samples, "store_pool_connections", store="mongodb", state="in_use") >= 1

    async def is_none_in_use() -> bool:  # the relay may just be at work
        return value(await scrape(client), "store_pool_connections", store="mongodb", state="in_use") == 0

    await until(is_none_in_use, 5)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}])
async def test_with_a_token_only_who_has_it_may_read(
    settings: Settings, stores: Stores, headers: dict[str, str]
) -> None:
    app = create_app(settings.model_copy(update={"metrics_token": SecretStr(TOKEN)}), stores)
    async with client_of(app) as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 401
        assert await scrape(client, SCRAPER)


async def test_who_guesses_the_token_is_counted_and_who_has_it_is_not(settings: Settings, stores: Stores) -> None:
    changes = {"metrics_token": SecretStr(TOKEN), "rate_limit_anonymous": "2/minute"}
    async with client_of(create_app(settings.model_copy(update=changes), stores)) as client:
        guesses = [await client.get("/metrics", headers={"Authorization": f"Bearer {i}"}) for i in range(3)]
        assert [guess.status_code for guess in guesses] == [401, 401, 429]
        assert await scrape(client, SCRAPER)


async def test_production_without_a_token_has_no_metrics(settings: Settings, stores: Stores) -> None:
    app = create_app(settings.model_copy(update={"environment": "production"}), stores)
    async with client_of(app) as client:
        assert (await client.get("/metrics", headers=SCRAPER)).status_code == 404


async def test_a_refusal_is_counted_by_its_limit(settings: Settings, stores: Stores) -> None:
    app = create_app(settings.model_copy(update={"rate_limit_requests": "1/minute"}), stores)
    async with client_of(app) as client:
        headers = await register(client)
        assert [(await client.get("/users/me", headers=headers)).status_code for _ in range(2)] == [200, 429]
        assert value(await scrape(client), "rate_limited_total", event="requests") == 1


async def test_production_tells_strangers_one_word(settings: Settings, stores: Stores) -> None:
    production = {"environment": "production", "metrics_token": SecretStr(TOKEN)}
    async with client_of(create_app(settings.model_copy(update=production), stores)) as client:
        assert (await client.get("/health")).status_code == 401
        assert "databases" in (await client.get("/health", headers=SCRAPER)).json()
        for path in ("/docs", "/openapi.json"):
            assert (await client.get(path, headers=SCRAPER)).status_code == 404
        for probe in ("live", "ready", "startup"):
            assert (await client.get(f"/health/{probe}")).json() == {"status": "ok"}
