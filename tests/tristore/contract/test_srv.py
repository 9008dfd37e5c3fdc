"""mongodb+srv://: members and options come from DNS, and TLS is on."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tristore.errors import StoreUnavailable
from tristore.settings import TristoreSettings
from tristore.stores.mongodb import MongoStore, open_mongodb, ping
from tristore.testing.lab import until
from tristore.testing.srv import MEMBER, NAME, ReplicaSet, names_of, replica_set_in
from tristore.testing.stores import Servers, settings_on
from tristore.testing.tls import Authority

CALLERS = 20
both_drivers = pytest.mark.parametrize("driver", ["motor", "pymongo"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.of(tmp_path_factory.mktemp("tls"), MEMBER)


@pytest.fixture(scope="module")
async def managed(run_folder: Path, authority: Authority, worker_id: str) -> AsyncIterator[ReplicaSet]:
    async with replica_set_in(run_folder / f"srv-{worker_id}", authority) as managed:
        yield managed


def settings_of(servers: Servers, dsn: str, driver: str, seconds: float = 10) -> TristoreSettings:
    more = {"mongodb_dsn": dsn, "mongodb_driver": driver, "mongodb_timeout": seconds}
    return settings_on(servers, TristoreSettings, **more)


@both_drivers
async def test_the_set_that_dns_names_is_connected_to_with_tls(
    servers: Servers, managed: ReplicaSet, authority: Authority, driver: str
) -> None:
    settings = settings_of(servers, f"{managed.dsn}?tlsCAFile={authority.ca}", driver)
    async with names_of(managed.records), open_mongodb(settings) as store:
        await ping(store)
        await store.insert_once("probes", {"_id": driver})
        async with store.reading() as database:
            assert await database.probes.find_one({"_id": driver}) == {"_id": driver}
        assert store.probe.nodes == {(MEMBER, managed.port)} == store.database.client.nodes
        assert store.probe.options.replica_set_name == "rs0"  # as TXT says


@both_drivers
@pytest.mark.parametrize("options", ["", "?tls=false"], ids=["another authority", "without TLS"])
async def test_who_trusts_another_authority_or_has_no_tls_does_not_get_in(
    servers: Servers, managed: ReplicaSet, driver: str, options: str
) -> None:
    settings = settings_of(servers, managed.dsn + options, driver, seconds=2)
    async with names_of(managed.records), open_mongodb(settings) as store:
        with pytest.raises(StoreUnavailable):
            await ping(store)
        with pytest.raises(StoreUnavailable):
            await store.insert_once("probes", {"_id": "in the clear"})


@both_drivers
async def test_while_dns_does_not_know_it_the_store_is_away_and_then_it_is_there(
    servers: Servers, managed: ReplicaSet, authority: Authority, driver: str
) -> None:
    settings = settings_of(servers, f"{managed.dsn}?tlsCAFile={authority.ca}", driver)
    async with open_mongodb(settings) as store:
        async with names_of({(NAME, "A"): "127.0.0.1"}):
            with pytest.raises(StoreUnavailable, match="unreachable"):
                await ping(store)
            with pytest.raises(StoreUnavailable, match="unreachable"):
                await store.insert_once("probes", {"_id": "later"})
        async with names_of(managed.records):
            await ping(store)
            await store.insert_once("probes", {"_id": "later"})


def at_work() -> set[object]:
    """Tasks, and threads of PyMongo."""
    return {*asyncio.all_tasks(), *(one for one in threading.enumerate() if one.name.startswith("pymongo"))}


async def read(store: MongoStore) -> None:
    async with store.reading() as database:
        await database.probes.find_one({})


@both_drivers
async def test_who_comes_before_dns_has_answered_leaves_nothing_at_work(
    servers: Servers, managed: ReplicaSet, authority: Authority, driver: str
) -> None:
    before = at_work()
    settings = settings_of(servers, f"{managed.dsn}?tlsCAFile={authority.ca}", driver)
    async with names_of(managed.records), open_mongodb(settings) as store:
        await asyncio.gather(*(read(store) for _ in range(CALLERS)))
        assert not store.looks_up

    async def has_ended() -> bool:
        return len(at_work() - before) < CALLERS / 2  # other clients of this process may have begun something meanwhile

    await until(has_ended, 10)
