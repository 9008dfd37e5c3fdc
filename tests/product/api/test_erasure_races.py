"""An erasure in the middle of all else that its user does: nothing is owed for the user after it, nothing deadlocks."""

import asyncio
import random
from collections.abc import AsyncIterator

import httpx
import pytest

from config import Settings
from main import create_app
from tests.product.people import account, register_admin, sign_in
from tests.product.routes import Operation, operations_of, stock
from tests.samples import QUICK
from tests.under_test import fresh_databases
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import LONG, until
from tristore.testing.outbox import query
from tristore.testing.stores import Servers, client_of

pytestmark = pytest.mark.timeout(120)
ROUNDS = 20 if LONG else 6

# Keeps the order in which effects were recorded, which is that of the commits.
NOTE = """
CREATE TABLE recorded (id bigint, aggregate text, store text, name text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO recorded VALUES (NEW.id, NEW.aggregate, NEW.store, NEW.name); RETURN NEW; END';
CREATE TRIGGER note AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION note()
"""
LAST = """
SELECT DISTINCT ON (aggregate) name FROM recorded
WHERE store = 'mongodb' AND aggregate LIKE 'user:%' AND aggregate <> :admin ORDER BY aggregate, id DESC
"""
ORPHANS = """
SELECT aggregate, store FROM outbox o
FULL JOIN (SELECT * FROM outbox_streams WHERE pending > 0) s USING (aggregate, store)
GROUP BY aggregate, store, s.pending HAVING s.pending IS DISTINCT FROM count(o.id)
"""


@pytest.fixture
async def settings(servers: Servers) -> AsyncIterator[Settings]:
    patient = {"postgres_request_deadline": 20, "mongodb_timeout": 10, "effects_deadline": 3.5}
    async with fresh_databases(servers, **patient, **QUICK) as settings:
        yield settings


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    async with open_stores(settings) as stores:
        for statement in NOTE.strip().split(";\n"):
            await query(stores, statement)
        yield stores


def acts_on_oneself(operation: Operation) -> bool:
    told = operation.document
    return operation.method != "get" and told["security"] and not operation.is_for_admins


async def race(
    client: httpx.AsyncClient, admin: dict[str, str], racers: list[Operation], chance: random.Random
) -> set[int]:
    """Let a new user do all of it twice, at once, sign in meanwhile, and erase the user in the end. Returns the
    answers' statuses."""
    body = account()
    await client.post("/users/register", json=body)
    headers = await sign_in(client, body["username"], body["password"])
    headers["X-User-Id"] = (await client.get("/users/me", headers=headers)).json()["id"]
    ids = await stock(client, headers, admin)
    tasks = [client.post("/auth/token", data={"username": body["username"], "password": body["password"]})]
    tasks += [operation.send(client, headers, ids) for operation in racers * 2]
    answers = await asyncio.gather(*chance.sample(tasks, len(tasks)))
    answers.append(await client.delete("/users/me", headers=headers))
    return {answer.status_code for answer in answers}


async def test_nothing_is_owed_for_a_user_after_the_erasure_and_nobody_waits_in_a_circle(
    settings: Settings, stores: Stores
) -> None:
    async with client_of(create_app(settings, stores)) as client:
        admin = await register_admin(client, stores)
        document = (await client.get("/openapi.json")).json()
        racers = [operation for operation in operations_of(document) if acts_on_oneself(operation)]
        assert len(racers) >= 8
        chance = random.Random(1)
        answered = set().union(*[await race(client, admin, racers, chance) for _ in range(ROUNDS)])
        await until(lambda: only_second_passes_are_owed(stores), 30)
        # 422: the password was another one already. 503: a slow machine has too many at once.
        assert answered <= {200, 201, 202, 204, 401, 404, 409, 422, 503}
        last = await query(stores, LAST, admin=f"user:{admin['X-User-Id']}")
        assert [row.name for row in last] == ["EraseDocumentsAgain"] * ROUNDS
        assert await query(stores, ORPHANS) == []
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert (await query(stores, deadlocks))[0].deadlocks == 0


async def only_second_passes_are_owed(stores: Stores) -> bool:
    return not await query(stores, "SELECT 1 FROM outbox WHERE delay = 0 AND aggregate NOT LIKE 'saga:%'")
