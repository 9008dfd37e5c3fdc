"""Every block of docs/coming-from.md is run: what it shows first breaks as it says, what it shows then holds."""

import asyncio
import os
import re
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import httpx
import pytest
from fastapi import Depends, FastAPI
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from tests.under_test import Lab, fresh_databases
from tristore.errors import StoreUnavailable
from tristore.models import new_id
from tristore.outbox.effects import Effect
from tristore.outbox.relay import Outbox
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores import mongodb
from tristore.stores.mongodb import MongoStore
from tristore.stores.postgres import connect
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import PROJECT, until
from tristore.testing.outbox import make_outbox, query, well

pytestmark = pytest.mark.timeout(180)
PAGE = (PROJECT / "docs/coming-from.md").read_text()
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^### (Before|After)\n\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {(title, when): code for title, body in SECTION.findall(PAGE) for when, code in BLOCK.findall(body)}
ACCOUNTS = "A session for each request, with three clients"
INVOICES = "A helper that begins both transactions"
MEMBERS = "full-stack-fastapi-template"
TABLES = """
CREATE TABLE accounts (id uuid PRIMARY KEY, email text UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE invoices (number int PRIMARY KEY);
CREATE TABLE members (name text PRIMARY KEY);
CREATE TABLE tasks (name text REFERENCES members, title varchar(10))
"""
CROWD = 120
NAMES: dict[str, Any] = {
    "Annotated": Annotated,
    "AsyncClientSession": AsyncClientSession,
    "AsyncIterator": AsyncIterator,
    "AsyncSession": AsyncSession,
    "Callable": Callable,
    "ClassVar": ClassVar,
    "Depends": Depends,
    "Effect": Effect,
    "FastAPI": FastAPI,
    "Iterator": Iterator,
    "Outbox": Outbox,
    "PostgresUnitOfWork": PostgresUnitOfWork,
    "Session": Session,
    "Targets": object,
    "__name__": "coming_from",
    "asynccontextmanager": asynccontextmanager,
    "connect": connect,
    "new_id": new_id,
    "text": text,
    "uuid": uuid,
}
"""What the blocks would import."""


@dataclass(frozen=True)
class Targets:
    mongodb: MongoStore


@dataclass(frozen=True)
class Service:
    """What the blocks stand on."""

    lab: Lab
    stores: Stores
    outbox: Outbox
    client: AsyncMongoClient[dict[str, Any]]

    @property
    def unit_of_work(self) -> Callable[[], PostgresUnitOfWork]:
        return partial(PostgresUnitOfWork, self.stores.postgres, self.outbox.record)

    def block(self, title: str, when: str, *, change: Callable[[str], str] = str, **more: Any) -> dict[str, Any]:
        """All names that are there when the block has run. `change`: what to change in its code before."""
        names = NAMES | {"client": self.client, "database": self.database, "documents": self.database}
        names |= {"outbox": self.outbox, "postgres": self.stores.postgres, "unit_of_work": self.unit_of_work}
        names |= {"new_session": async_sessionmaker(self.stores.postgres.engine), **more}
        exec(compile(change(BLOCKS[title, when]), f"docs/coming-from.md, {title}, {when}", "exec"), names)
        return names

    @property
    def database(self) -> Any:
        return self.client[self.lab.settings.mongodb_database]

    async def count(self, table: str) -> int:
        return int((await query(self.stores, f"SELECT count(*) FROM {table}"))[0][0])


@pytest.fixture
async def service(lab: Lab) -> AsyncIterator[Service]:
    patient = {"postgres_request_deadline": 10, "postgres_connect_timeout": 10, "mongodb_timeout": 1}
    async with fresh_databases(lab.servers, **patient) as settings, open_stores(settings) as stores:
        for statement in TABLES.split(";"):
            await query(stores, statement)
        ping = partial(mongodb.ping, stores.mongodb)
        outbox = make_outbox(stores, Targets(stores.mongodb), pings={"redis": well, "mongodb": ping})
        dsn = settings.dsn("mongodb_dsn")
        async with AsyncMongoClient[dict[str, Any]](dsn, serverSelectionTimeoutMS=500) as client:
            yield Service(lab.on(settings), stores, outbox, client)
        await outbox.close()


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield client


def test_each_section_of_the_page_shows_what_was_and_what_is() -> None:
    assert list(BLOCKS) == [(title, when) for title in (ACCOUNTS, INVOICES, MEMBERS) for when in ("Before", "After")]


async def test_before_success_is_answered_and_the_commit_fails(service: Service) -> None:
    app: FastAPI = service.block(ACCOUNTS, "Before")["app"]
    async with client_of(app) as client:
        first = await client.post("/accounts", params={"email": "ana"})
        assert first.status_code == 201
        with suppress(SQLAlchemyError, BaseExceptionGroup):  # whom it reaches is the server, which can only log it
            second = await client.post("/accounts", params={"email": "ana"})
            assert second.status_code == 201
    assert await service.count("accounts") == 1
    assert await service.database.welcomes.count_documents({}) == 2


async def test_before_a_store_that_is_down_leaves_a_half_if_the_commit_comes_first(service: Service) -> None:
    """As the page says of the cure that is none."""

    def commit_first(code: str) -> str:
        before, line, after = code.partition("    await documents.welcomes")
        return f"{before}    await session.commit()\n{line}{after}"

    app: FastAPI = service.block(ACCOUNTS, "Before", change=commit_first)["app"]
    async with client_of(app) as client:
        async with service.lab.without("mongodb", "killed"):
            assert (await client.post("/accounts", params={"email": "ana"})).status_code == 500
        assert (await client.post("/accounts", params={"email": "ana"})).status_code == 500  # the address is taken
    assert await service.count("accounts") == 1
    assert await service.database.welcomes.count_documents({}) == 0


async def test_after_a_commit_that_fails_is_told_and_owes_nothing(service: Service) -> None:
    accounts = service.block(ACCOUNTS, "After")["AccountService"](
        unit_of_work=service.unit_of_work, outbox=service.outbox
    )
    await accounts.open("ana")
    with pytest.raises(SQLAlchemyError):
        await accounts.open("ana")
    assert await service.count("accounts") == 1
    assert await service.database.welcomes.count_documents({}) == 1


async def test_after_what_a_store_missed_comes_when_it_is_back(service: Service) -> None:
    accounts = service.block(ACCOUNTS, "After")["AccountService"](
        unit_of_work=service.unit_of_work, outbox=service.outbox
    )
    async with service.lab.without("mongodb", "killed"):
        account = await accounts.open("ana")
    await until_delivered(service)
    assert [one["_id"] async for one in service.database.welcomes.find({})] == [str(account)]


async def until_delivered(service: Service) -> None:
    service.outbox.start()

    async def nothing_is_owed() -> bool:
        with suppress(StoreUnavailable):
            return await service.count("outbox") == 0
        return False

    await until(nothing_is_owed, 60)


async def test_before_the_second_commit_fails_after_the_first(service: Service) -> None:
    file_invoice = service.block(INVOICES, "Before")["file_invoice"]
    await file_invoice(1, ["a"])
    async with mongodb_killed_at_the_next_commit(service):
        with pytest.raises(PyMongoError):
            await file_invoice(2, ["b"])
    assert await service.count("invoices") == 2
    assert [one["_id"] async for one in service.database.invoices.find({})] == [1]
    with pytest.raises(SQLAlchemyError):  # asking again does not mend it
        await file_invoice(2, ["b"])


async def test_after_there_is_one_commit(service: Service) -> None:
    file_invoice = service.block(INVOICES, "After")["file_invoice"]
    await file_invoice(1, ["a"])
    async with mongodb_killed_at_the_next_commit(service):
        await file_invoice(2, ["b"])
    await until_delivered(service)
    found = [one async for one in service.database.invoices.find({}).sort("_id")]
    assert found == [{"_id": 1, "lines": ["a"]}, {"_id": 2, "lines": ["b"]}]
    assert await service.count("invoices") == 2


@asynccontextmanager
async def mongodb_killed_at_the_next_commit(service: Service) -> AsyncIterator[None]:
    """It is killed when PostgreSQL is about to commit, and started again at the end."""
    killed: list[int] = []

    def kill(*_: object) -> None:
        for pid in service.lab.embedded.pids("mongodb"):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    event.listen(service.stores.postgres.engine.sync_engine, "commit", kill, once=True)
    try:
        yield
        assert killed
    finally:
        await service.lab.bring_back("mongodb", "killed")


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Engine]:
    """As SQLAlchemy makes it: 5 connections, and 10 more. SQLite, because only asynchronous drivers of PostgreSQL are
    installed; what breaks has nothing to do with the database."""
    engine = create_engine(f"sqlite:///{tmp_path}/members", pool_timeout=2)
    event.listen(engine, "connect", lambda raw, _: raw.create_function("pg_sleep", 1, time.sleep))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE members (name text PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE tasks (name text, title text CHECK (length(title) <= 10))"))
    yield engine
    engine.dispose()


async def test_before_half_of_a_use_case_stays(service: Service, members: Engine) -> None:
    async with client_of(service.block(MEMBERS, "Before", engine=members)["app"]) as client:
        answer = await client.post("/members", params={"name": "ana", "title": "much too long"})
        assert answer.status_code == 500
    with members.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM members")) == 1
        assert connection.scalar(text("SELECT count(*) FROM tasks")) == 0


async def test_after_it_is_whole_or_absent(service: Service) -> None:
    async with client_of(service.block(MEMBERS, "After")["app"]) as client:
        params = {"name": "ana", "title": "much too long"}
        assert (await client.post("/members", params=params)).status_code == 500
        assert (await service.count("members"), await service.count("tasks")) == (0, 0)
        assert (await client.post("/members", params=params | {"title": "short"})).status_code == 201
    assert (await service.count("members"), await service.count("tasks")) == (1, 1)


async def test_before_a_crowd_stands_still(service: Service, members: Engine) -> None:
    with members.begin() as connection:
        connection.execute(text("INSERT INTO members VALUES ('ana')"))
    async with client_of(service.block(MEMBERS, "Before", engine=members)["app"]) as client:
        assert (await client.get("/members")).json() == ["ana"]
        assert 500 in await statuses_of_a_crowd(client)  # the pool gave up


async def test_after_a_crowd_is_served(service: Service) -> None:
    await query(service.stores, "INSERT INTO members VALUES ('ana')")
    async with client_of(service.block(MEMBERS, "After")["app"]) as client:
        assert await statuses_of_a_crowd(client) == {200}


async def statuses_of_a_crowd(client: httpx.AsyncClient) -> set[int]:
    return {answer.status_code for answer in await asyncio.gather(*(client.get("/members") for _ in range(CROWD)))}
