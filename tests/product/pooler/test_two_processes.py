"""Two app processes behind one PgBouncer: no request fails, and nothing that they prepared is left on a server."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from config import Settings
from models.course import EXAMPLE
from tests.product.people import register, register_admin
from tests.product.things import start_conversation
from tests.under_test import apps_on
from tristore.stores.stores import Stores
from tristore.testing import pooler
from tristore.testing.lab import LONG, App, RawConnection

CLIENTS, ROUNDS = 20, 50 if LONG else 5
"""In a round each client sends five requests to each process: 10,000 in the long form."""
LOOKED_AT = 20
"""Connections of the server: all that the pooler holds in transaction mode."""
LEFT = "SELECT pg_backend_pid() AS server, (SELECT count(*) FROM pg_prepared_statements WHERE name <> '') AS prepared"


async def test_no_request_of_two_processes_fails_and_nothing_prepared_is_left(
    settings: Settings, stores: Stores, tmp_path: Path
) -> None:
    apps = apps_on(settings, tmp_path)
    async with apps.app() as one, apps.app() as two:
        learners = [await register(one.client) for _ in range(CLIENTS)]
        admin = await register_admin(one.client, stores)
        talks = [await start_conversation(two.client, headers) for headers in learners]
        answers: Counter[int] = Counter()
        await asyncio.gather(*(ask((one, two), *whose, admin, answers) for whose in zip(learners, talks, strict=True)))
        assert answers == {200: 6 * CLIENTS * ROUNDS, 201: 4 * CLIENTS * ROUNDS}
        if pooler.MODE == "transaction":  # in the other mode they belong to sessions, which have not ended yet
            assert await prepared(settings) == [0] * LOOKED_AT
    assert await prepared(settings) == [0] * LOOKED_AT


async def ask(
    apps: Sequence[App], headers: Mapping[str, str], talk: str, admin: Mapping[str, str], answers: Counter[int]
) -> None:
    """What reads and writes PostgreSQL by each way that the service has: hot queries, sessions, the outbox."""
    mine, admins = ({"Authorization": who["Authorization"]} for who in (headers, admin))
    async with AsyncExitStack() as exits:
        connections = [await exits.enter_async_context(RawConnection.to(app)) for app in apps]
        for number in range(ROUNDS):
            for connection in connections:
                answered = [
                    await connection.request("GET", "/users/me", mine),
                    await change(connection, mine, number),
                    await connection.request("GET", "/courses", mine),
                    await connection.post("/courses", admins, EXAMPLE),
                    await connection.post(f"{talk}/messages", mine, {"content": "x"}),
                ]
                answers.update(status for status, _ in answered)


async def change(connection: RawConnection, mine: Mapping[str, str], number: int) -> tuple[int, object]:
    body = f'{{"bio": "{number}"}}'.encode()
    return await connection.request("PATCH", "/users/me", {"Content-Type": "application/json", **mine}, body)


async def prepared(settings: Settings) -> list[int]:
    """How many statements each of so many connections of the server has."""
    dsn = settings.dsn("postgres_dsn").replace("+asyncpg", "")
    async with AsyncExitStack() as exits:
        looks = []
        for _ in range(LOOKED_AT):
            connection = await asyncpg.connect(dsn, statement_cache_size=0)
            exits.push_async_callback(connection.close)
            await exits.enter_async_context(connection.transaction())  # so each has a server's connection for itself
            looks += await connection.fetch(LEFT)
        assert len({look["server"] for look in looks}) == len(looks)
        return [look["prepared"] for look in looks]


@pytest.fixture(autouse=True)
def through_a_pooler(settings: Settings) -> None:
    assert settings.postgres_pooler == pooler.MODE != ""
