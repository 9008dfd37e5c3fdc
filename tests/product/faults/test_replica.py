"""With a replica that is held back: nobody misses what they have written, and its end costs nobody a request."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from pydantic import SecretStr

from tests.product.orders import order
from tests.product.people import register, register_admin
from tests.product.things import new_course
from tests.under_test import Lab, fresh_databases, migrate
from tristore.stores.stores import open_stores
from tristore.testing.lab import LONG, App, until
from tristore.testing.proxy import Proxy, proxy_to
from tristore.testing.replication import Replication, replication_in

pytestmark = pytest.mark.timeout(600)
BEHIND, MAX_LAG = (5, 8) if LONG else (1.5, 3)
CALLERS, ROUNDS = (40, 250) if LONG else (8, 6)
PAGE = 20


@dataclass(frozen=True)
class Shop:
    apps: list[App]
    replication: Replication
    to_replica: Proxy
    admin: dict[str, str]
    callers: list[dict[str, str]]
    course: dict[str, Any]

    async def replica(self, app: App) -> Any:
        return (await app.client.get("/health")).json()["checks"]["postgresql"]["replica"]

    async def serves(self) -> bool:
        return all([(await self.replica(app))["serves"] for app in self.apps])

    async def is_left_out(self) -> bool:
        return not any([(await self.replica(app))["serves"] for app in self.apps])

    async def read_at(self) -> dict[str, float]:
        """How often each server was asked, by both apps."""
        found = dict.fromkeys(("replica", "primary"), 0.0)
        for app in self.apps:
            told = (await app.client.get("/metrics")).text
            for event in found:
                if value := re.search(rf'^replica_reads_total{{event="{event}"}} (\S+)$', told, re.MULTILINE):
                    found[event] += float(value[1])
        return found

    async def is_served_by_replica(self, app: App, headers: dict[str, str]) -> bool:
        before = await self.read_at()
        await orders(app, headers)
        return (await self.read_at())["replica"] > before["replica"]


async def ids(app: App, path: str, headers: dict[str, str]) -> list[str]:
    answer = await app.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


async def orders(app: App, headers: dict[str, str]) -> list[str]:
    return await ids(app, f"/orders?limit={PAGE}", headers)


@pytest.fixture(scope="module")
async def shop(lab: Lab, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder = run_folder / tmp_path_factory.mktemp("replication").name
    async with (
        fresh_databases(lab.servers) as settings,
        replication_in(folder, synchronous=False) as replication,
        proxy_to(replication.standby.port) as to_replica,
    ):
        here = settings.model_copy(update={"postgres_dsn": SecretStr(replication.dsn(replication.primary.port))})
        await migrate(here)
        replica_dsn = replication.dsn(to_replica.port).partition("?")[0]
        more = {"POSTGRES_REPLICA_DSN": replica_dsn, "POSTGRES_REPLICA_MAX_LAG": str(MAX_LAG)}
        async with lab.on(here).app(**more) as first, lab.on(here).app(**more) as second:
            async with open_stores(here) as stores:
                admin = await register_admin(first.client, stores)
            course = await new_course(first.client, admin, capacity=100_000)
            callers = [await register(first.client) for _ in range(CALLERS)]
            shop = Shop([first, second], replication, to_replica, admin, callers, course)
            await until(shop.serves, 20)
            yield shop


@pytest.fixture
async def held_back(shop: Shop) -> AsyncIterator[None]:
    async def hold(milliseconds: int) -> None:
        await shop.replication.standby.says(f"ALTER SYSTEM SET recovery_min_apply_delay = {milliseconds}")
        await shop.replication.standby.says("SELECT pg_reload_conf()")

    await hold(round(BEHIND * 1000))
    yield
    await hold(0)


@pytest.mark.usefixtures("held_back")
async def test_whoever_has_written_finds_it_in_either_process(shop: Shop) -> None:
    async def buy_and_look(headers: dict[str, str]) -> None:
        placed: list[str] = []
        for _ in range(ROUNDS):
            answer = await order(random.choice(shop.apps).client, headers, shop.course, quantity=1)
            assert answer.status_code == 201, answer.text
            placed.insert(0, answer.json()["id"])
            assert await orders(random.choice(shop.apps), headers) == placed[:PAGE]

    await asyncio.gather(*map(buy_and_look, shop.callers[1:]))
    told = [await shop.replica(app) for app in shop.apps]
    assert all(replica["serves"] and replica["lag_seconds"] > BEHIND / 2 for replica in told)


@pytest.mark.usefixtures("held_back")
async def test_others_read_from_the_replica(shop: Shop) -> None:
    app, reader = shop.apps[1], shop.callers[0]
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
    new = (await new_course(shop.apps[0].client, shop.admin, title="the newest"))["id"]
    assert new not in await ids(app, "/courses", reader)  # so it was the replica, and it is behind
    assert new in await ids(app, "/courses", shop.admin)

    async def has_come() -> bool:
        return new in await ids(app, "/courses", reader)

    await until(has_come, 30)


@pytest.mark.parametrize("go", ["hangs", "is gone"])
async def test_a_replica_that_goes_costs_no_request(shop: Shop, go: str) -> None:
    app, reader = shop.apps[1], shop.callers[0]
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
    if go == "hangs":
        shop.to_replica.black_hole = True
    else:
        await to_thread.run_sync(shop.replication.standby.kill)
    for _ in range(20):
        await asyncio.gather(*(orders(app, headers) for headers in shop.callers))
    await until(shop.is_left_out, 10)
    assert (await shop.replica(app))["lag_seconds"] is None
    assert (await app.client.get("/health")).json()["status"] == "ok"
    if go == "hangs":
        shop.to_replica.black_hole = False
        shop.to_replica.reset()
    else:
        await to_thread.run_sync(shop.replication.standby.start)
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
