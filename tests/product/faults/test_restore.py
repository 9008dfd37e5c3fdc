"""Backups of different moments come together, as docs/backups.md says: what does not fit is found, and mended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from config import Settings
from models.user import Registration
from tests.product.checking import run_check
from tests.product.commands import manage
from tests.product.documents import blocks
from tests.product.people import account, patiently, sign_in
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import PROJECT
from tristore.testing.outbox import query, until_empty
from wiring import Services

pytestmark = pytest.mark.timeout(300)
FIRST = "users without any conversation"
CONVERSATIONS, ACTIVITY = (f"{name} of owners who are gone" for name in ("conversations", "activity"))


@dataclass(frozen=True)
class Person:
    id: str
    headers: dict[str, str]


async def joins(client: httpx.AsyncClient) -> Person:
    body = account()
    made = await patiently(lambda: client.post("/users/register", json=body))
    return Person(made.json()["user_id"], await sign_in(client, body["username"], body["password"]))


async def leaves(client: httpx.AsyncClient, person: Person) -> None:
    answer = await patiently(lambda: client.delete("/users/me", headers=person.headers))
    assert answer.status_code == 202


async def wrong(lab: Lab) -> dict[str, set[str]]:
    return {kind: set(check["wrong"]) for kind, check in (await run_check(lab)).items() if check["wrong"]}


@pytest.fixture
async def apart(lab: Lab) -> AsyncIterator[Lab]:
    async with fresh_databases(lab.servers, purge_seconds=0.5) as settings:
        yield lab.on(settings)


@asynccontextmanager
async def opened(lab: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(lab.settings) as stores:
        yield stores


@asynccontextmanager
async def working(lab: Lab) -> AsyncIterator[httpx.AsyncClient]:
    """The service. When it ends, nothing is owed any more."""
    async with lab.app() as app:
        yield app.client
        async with opened(lab) as stores:
            await until_empty(stores, 30)


async def documents(stores: Stores) -> dict[str, list[dict[str, Any]]]:
    database = stores.mongodb.database
    return {name: await database[name].find().to_list(None) for name in ("conversations", "messages", "activity")}


async def put_back(stores: Stores, backup: dict[str, list[dict[str, Any]]]) -> None:
    for name, found in backup.items():
        await stores.mongodb.database[name].delete_many({})
        if found:
            await stores.mongodb.database[name].insert_many(found)


@asynccontextmanager
async def copy_of_postgresql(lab: Lab) -> AsyncIterator[Settings]:
    """Settings with PostgreSQL as it is now, and the same MongoDB. Nobody may be connected."""
    name = lab.settings.migrations_dsn().rpartition("/")[2]
    administrator = await asyncpg.connect(lab.servers["postgresql"].dsn.replace("+asyncpg", ""))
    try:
        await administrator.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
        restored = SecretStr(f"{lab.settings.dsn('postgres_dsn')}_copy")
        yield lab.settings.model_copy(update={"postgres_dsn": restored})
    finally:
        await administrator.execute(f'DROP DATABASE IF EXISTS "{name}_copy"')
        await administrator.close()


async def test_a_mongodb_that_is_older_than_postgresql(apart: Lab) -> None:
    async with working(apart) as client:
        stays, goes = await joins(client), await joins(client)
    async with opened(apart) as stores:
        backup = await documents(stores)
    async with working(apart) as client:
        late = await joins(client)
        await leaves(client, goes)
    async with opened(apart) as stores:
        await put_back(stores, backup)
        assert await wrong(apart) == {FIRST: {late.id}, CONVERSATIONS: {goes.id}, ACTIVITY: {goes.id}}
        assert (await manage(apart, "erase", goes.id, "--yes"))[0] == 0
        assert await wrong(apart) == {FIRST: {late.id}}
    async with working(apart) as client:
        begun = await client.post("/conversations", headers=late.headers, json={"title": "again"})
        assert begun.status_code == 201
        assert (await client.get("/conversations", headers=stays.headers)).json()["items"]
    assert await wrong(apart) == {}


async def test_a_postgresql_that_is_older_than_mongodb(apart: Lab) -> None:
    async with working(apart) as client:
        stays, goes, signs_out = [await joins(client) for _ in range(3)]
    owed = await registered_without_mongodb(apart)
    async with copy_of_postgresql(apart) as older:
        async with working(apart) as client:  # delivers what is owed
            late = await joins(client)
            await leaves(client, goes)
            assert (await client.post("/auth/logout", headers=signs_out.headers)).status_code == 204
        restored = apart.on(older)
        async with opened(restored) as stores:
            assert (await query(stores, "SELECT count(*) FROM outbox"))[0][0] >= 2
            await stores.redis.client.flushall()
            [end_sessions] = blocks(PROJECT / "docs/backups.md", "sql")
            await query(stores, end_sessions)
            assert (await manage(restored, "outbox", "drain"))[0] == 0
            of_owed = {"user_id": owed}
            assert await stores.mongodb.database.conversations.count_documents(of_owed) == 1  # delivered twice
            assert await stores.mongodb.database.activity.count_documents(of_owed) == 1
        assert await wrong(restored) == {FIRST: {goes.id}, CONVERSATIONS: {late.id}, ACTIVITY: {late.id}}
        assert (await manage(restored, "erase", goes.id, late.id, "--yes"))[0] == 0
        assert await wrong(restored) == {}
        async with working(restored) as client:
            for person in (stays, signs_out, late):
                assert (await client.get("/users/me", headers=person.headers)).status_code == 401


async def registered_without_mongodb(lab: Lab) -> str:
    """The id of a user to whom MongoDB is owed all."""
    nowhere = {"mongodb_dsn": SecretStr("mongodb://127.0.0.1:1/?replicaSet=rs0"), "mongodb_timeout": 0.2}
    settings = lab.settings.model_copy(update=nowhere)
    async with open_stores(settings) as stores:
        services = Services(settings, stores)
        registered = await services.users.register_user(Registration.model_validate(account()))
        await services.close()
    return str(registered.user_id)
