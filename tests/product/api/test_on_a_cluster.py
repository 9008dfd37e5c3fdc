"""The API on a Redis Cluster: a walk over all routes, with limits that are counted in it."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from config import Settings
from main import create_app
from tests.product.outages import health, refused
from tests.product.people import account, register, register_admin, sign_in
from tests.product.routes import operations_of, stock
from tristore.cache.feed import ALIVE_KEY
from tristore.stores.redis import beating
from tristore.stores.stores import Stores, open_stores
from tristore.testing.cluster import RedisCluster
from tristore.testing.lab import until
from tristore.testing.stores import client_of, servers_of

LIMITS = {f"rate_limit_{name}": "1000/minute" for name in ("sign_in_address", "sign_in_account", "registration")}


@pytest.fixture
async def on_cluster(settings: Settings, cluster: RedisCluster) -> AsyncIterator[tuple[httpx.AsyncClient, Stores]]:
    dsn = SecretStr(cluster.dsn)
    own = Settings(_env_file=None, **settings.model_dump(exclude_unset=True) | LIMITS | {"redis_dsn": dsn})
    async with open_stores(own) as stores, client_of(create_app(own, stores)) as client:
        await until(lambda: is_well(client), 10)
        yield client, stores


async def is_well(client: httpx.AsyncClient) -> bool:
    return bool((await health(client))[1]["databases"]["redis"] == "connected")


async def test_no_route_answers_5xx(on_cluster: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = on_cluster
    operations = operations_of((await client.get("/openapi.json")).json())
    statuses = set()
    is_used = True
    for operation in sorted(operations, key=lambda operation: operation.method != "get"):
        if operation.has_no_end:
            continue
        if is_used:
            headers, admin = await register(client), await register_admin(client, stores)
            ids = await stock(client, headers, admin)
        is_used = operation.method != "get"
        for who in (headers, admin):
            answer = await operation.send(client, who, ids)
            assert answer.status_code < 500, (operation.name, answer.text)
            statuses.add(answer.status_code)
    assert statuses >= {200, 201, 204, 404}


async def test_what_belongs_in_redis_is_in_the_cluster(on_cluster: tuple[httpx.AsyncClient, Stores]) -> None:
    client, stores = on_cluster
    assert stores.redis.cluster
    await stores.redis.client.flushall()
    person = account()
    headers = await register(client, **person)
    assert await refused(client, headers) == []
    assert (await client.get("/users/me", headers=headers)).json()["username"] == person["username"]
    await sign_in(client, person["username"], person["password"])
    await until(lambda: is_beating_everywhere(stores), 5)
    names = []
    for server in stores.redis.cluster.servers:
        names += [name.decode() async for name in server.client.scan_iter()]
    kinds = {name.partition(":")[0] for name in names}
    assert kinds >= {"cache", "limits", "wake-ups"}
    assert any(headers["X-User-Id"] in name for name in names)


async def is_beating_everywhere(stores: Stores) -> bool:
    return all([await beating(one.client, one.identity.key(ALIVE_KEY), 2) for one in servers_of(stores.redis)])
