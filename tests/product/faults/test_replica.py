"""With a replica that is held back: nobody misses what they have written, and its end costs nobody a request."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from pydantic import SecretStr

from tests.product.people import register, register_admin
from tests.product.things import new_course
from tests.under_test import Lab, fresh_databases, migrate, stores_beside
from tristore.testing.lab import LONG, App, until
from tristore.testing.proxy import Proxy, proxy_to
from tristore.testing.replication import Replication, replication_in

pytestmark = pytest.mark.timeout(600)
BEHIND, MAX_LAG = (5, 8) if LONG else (1.5, 3)
ADMINS, ROUNDS = (40, 250) if LONG else (5, 4)


@dataclass(frozen=True)
class Shop:
    apps: list[App]
    replication: Replication
    to_replica: Proxy
    admins: list[dict[str, str]]
    reader: dict[str, str]
    """Of somebody who never writes."""

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
        await courses(app, headers)
        return (await self.read_at())["replica"] > before["replica"]


Change = Callable[[Shop], Awaitable[None]]


async def courses(app: App, headers: dict[str, str]) -> list[str]:
    answer = await app.client.get("/courses?limit=100", headers=headers)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


@pytest.fixture
async def shop(lab: Lab, run_folder: Path, tmp_path: Path) -> AsyncIterator[Shop]:
    async with (
        fresh_databases(lab.servers) as settings,
        replication_in(run_folder / f"{tmp_path.parent.name}-{tmp_path.name}", synchronous=False) as replication,
        proxy_to(replication.standby.port) as to_replica,
    ):
        here = settings.model_copy(update={"postgres_dsn": SecretStr(replication.dsn(replication.primary.port))})
        await migrate(here)
        replica_dsn = replication.dsn(to_replica.port).partition("?")[0]
        more = {"POSTGRES_REPLICA_DSN": replica_dsn, "POSTGRES_REPLICA_MAX_LAG": str(MAX_LAG)}
        more |= {"POSTGRES_REQUEST_DEADLINE": "8"}  # it is about what is true, not about how soon
        async with lab.on(here).app(**more) as first, lab.on(here).app(**more) as second:
            async with stores_beside(here) as stores:
                admins = [await register_admin(first.client, stores) for _ in range(ADMINS)]
            shop = Shop([first, second], replication, to_replica, admins, await register(first.client))
            await until(shop.serves, 20)
            yield shop


@asynccontextmanager
async def held_back(shop: Shop) -> AsyncIterator[None]:
    async def hold(milliseconds: int) -> None:
        await shop.replication.standby.says(f"ALTER SYSTEM SET recovery_min_apply_delay = {milliseconds}")
        await shop.replication.standby.says("SELECT pg_reload_conf()")

    await hold(round(BEHIND * 1000))
    try:
        yield
    finally:
        await hold(0)


async def test_a_day_of_a_replica(shop: Shop) -> None:
    """One test, because a replica takes its time to begin."""
    async with held_back(shop):
        await writers_find_what_they_have_written(shop)
        await others_read_from_the_replica(shop)
    await the_primary_keeps_the_reads_of_who_writes(shop)
    for go, come_back in ((hang, go_on), (die, begin_again)):
        await costs_no_request(shop, go, come_back)


async def writers_find_what_they_have_written(shop: Shop) -> None:
    for app in shop.apps:  # or nobody is served by the replica, and so the writers are not either
        await until(partial(shop.is_served_by_replica, app, shop.reader), 60)

    async def add_and_look(admin: dict[str, str]) -> None:
        for _ in range(ROUNDS):
            new = await new_course(random.choice(shop.apps).client, admin)
            assert new["id"] in await courses(random.choice(shop.apps), admin)

    await asyncio.gather(*map(add_and_look, shop.admins))


async def others_read_from_the_replica(shop: Shop) -> None:
    app, reader = shop.apps[1], shop.reader
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
    admin = shop.admins[0]
    new: list[str] = []

    async def is_behind() -> bool:
        new.append((await new_course(shop.apps[0].client, admin))["id"])
        assert new[-1] in await courses(app, admin)
        before = await shop.read_at()
        seen = await courses(app, reader)
        return (await shop.read_at())["replica"] > before["replica"] and new[-1] not in seen

    async def has_come() -> bool:
        return new[-1] in await courses(app, reader)

    await until(is_behind, 60)
    await until(has_come, 30)


async def the_primary_keeps_the_reads_of_who_writes(shop: Shop) -> None:
    """One read in ten. Without a replica it has all of them."""
    for app in shop.apps:
        await until(partial(shop.is_served_by_replica, app, shop.reader), 60)
    before = await shop.read_at()
    for number in range(20):
        await new_course(shop.apps[0].client, shop.admins[0])
        await courses(shop.apps[1], shop.admins[0])
        for _ in range(9):
            await courses(shop.apps[number % 2], shop.reader)
    after = await shop.read_at()
    grown = {server: after[server] - before[server] for server in after}
    share = grown["primary"] / sum(grown.values())
    print(f"\nthe primary's share of {sum(grown.values()):.0f} declared reads: {share:.0%}")
    assert grown["primary"] >= 20
    assert share < 0.2  # a busy machine may send one back that took too long


async def hang(shop: Shop) -> None:
    shop.to_replica.black_hole = True


async def go_on(shop: Shop) -> None:
    shop.to_replica.black_hole = False
    shop.to_replica.reset()


async def die(shop: Shop) -> None:
    await to_thread.run_sync(shop.replication.standby.kill)


async def begin_again(shop: Shop) -> None:
    await to_thread.run_sync(shop.replication.standby.start)


async def costs_no_request(shop: Shop, go: Change, come_back: Change) -> None:
    app, reader = shop.apps[1], shop.reader
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
    await go(shop)
    for _ in range(20):
        await asyncio.gather(*(courses(app, reader) for app in shop.apps))
    await until(shop.is_left_out, 10)
    assert (await app.client.get("/health")).json()["status"] == "ok"
    await come_back(shop)
    await until(lambda: shop.is_served_by_replica(app, reader), 60)
