"""What belongs to a user stands in services/personal.py, and all that stands there is exported and erased."""

from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from sqlalchemy import text

from config import Settings
from database.stores import Stores, open_stores
from main import create_app
from models.tables import metadata
from services.personal import PERSONAL
from tests.product.people import account, register, register_admin, sign_in
from tests.product.routes import keep_link, stock, stocked
from tests.product.traces import traces
from tests.samples import QUICK, SAMPLES
from tests.under_test import fresh_databases
from tristore.personal import Rows
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.stores import Servers, client_of

LISTED = {place for entity in PERSONAL for place in entity.stored_in}
KEPT = {f"postgresql {table}" for entity in PERSONAL if isinstance(entity, Rows) for table in entity.keeps}
OF_USERS = """
SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND confrelid = 'users'::regclass
UNION SELECT table_name FROM information_schema.columns
WHERE table_schema = 'public' AND column_name IN ('user_id', 'owner', 'owner_id')
"""
CURE = (
    '{place} names users, and PERSONAL in services/personal.py does not list it. Add {kind}("{place}", its model, '
    "its repository), so that it is exported, and erased with the user."
)


async def test_every_table_that_names_a_user_is_personal(stores: Stores) -> None:
    async with stores.postgres.engine.connect() as connection:
        tables = (await connection.scalars(text(OF_USERS))).all()
    assert len(tables) >= 3
    for table in tables:
        assert table in LISTED, CURE.format(place=table, kind="rows")


async def test_every_collection_that_names_a_user_is_personal(client: httpx.AsyncClient, stores: Stores) -> None:
    ids = await stocked(client, stores)
    database, found = stores.mongodb.database, set()
    for collection in await database.list_collection_names():
        documents = await database[collection].find().to_list(None)
        if any(ids["user_id"] in document.values() for document in documents):
            found.add(collection)
    assert found
    for collection in found:
        assert collection in LISTED, CURE.format(place=collection, kind="documents")


TELLS_NOTHING = {"idempotency_keys"}
"""What users are not shown: it holds hashes and ids, and nothing of theirs."""


def test_what_is_personal_is_exported() -> None:
    for entity in PERSONAL:
        assert entity.export or entity.name in TELLS_NOTHING, (
            f"{entity.name} in PERSONAL (services/personal.py) has no export, so its user never sees it. Make it with "
            f"rows(...) or documents(...), which export it. If it tells users nothing, add it to TELLS_NOTHING here"
        )


async def test_what_is_personal_exists(stores: Stores) -> None:
    """A name that is spelt wrong would hide what it should list."""
    assert metadata.tables.keys() | set(await stores.mongodb.database.list_collection_names()) >= LISTED


async def test_the_export_has_one_of_everything(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    await stock(client, headers, await register_admin(client, stores))
    await keep_link(stores, headers["X-User-Id"])
    exported = (await client.get("/users/me/export", headers=headers)).json()
    assert list(exported) == [entity.name for entity in PERSONAL if entity.export]
    for name, value in exported.items():
        assert value, f"The export has no {name}, although there are some. Look at it in PERSONAL"


@pytest.fixture
async def quick(servers: Servers) -> AsyncIterator[Settings]:
    """Databases of its own: elsewhere other tests' erasures are owed for a minute."""
    async with fresh_databases(servers, purge_seconds=1.0, effects_deadline=3, **QUICK) as settings:
        yield settings


async def test_after_the_second_pass_only_what_is_kept_is_left(quick: Settings) -> None:
    body = account()
    async with open_stores(quick) as stores:
        async with client_of(create_app(quick, stores)) as client:
            await client.post("/users/register", headers={"Idempotency-Key": "of-the-user"}, json=body)
            headers = await sign_in(client, body["username"], body["password"])
            headers["X-User-Id"] = (await client.get("/users/me", headers=headers)).json()["id"]
            keyed = headers | {"Idempotency-Key": "of-the-user"}
            ids = await stock(client, keyed, await register_admin(client, stores))
            await keep_link(stores, ids["user_id"])
            await client.patch("/users/me", headers=headers, json={"bio": f"bio of {body['username']}"})
            assert (await client.delete("/users/me", headers=headers)).status_code == 202
            mine = [ids[sample.parameter] for sample in SAMPLES if sample.owner == "user"]

            async def left_over() -> set[str]:
                of_user = set(await traces(stores, ids["user_id"]))
                of_samples = [set(await traces(stores, id_)) for id_ in mine]
                return (of_user - KEPT).union(*(places for places in of_samples if not places & KEPT))

            async def only_what_is_kept_is_left() -> bool:
                return not await left_over()

            with suppress(TimeoutError):
                await until(only_what_is_kept_is_left, 20)
            for place in await left_over():
                pytest.fail(
                    f"{place} still has something of an erased user. Let `erase` in the repository of this entity "
                    "delete it (PERSONAL in services/personal.py names the entity), or say in its `keeps` that it stays"
                )
            assert set(await traces(stores, ids["user_id"])) == KEPT, "What `keeps` names in PERSONAL must stay"
        [row] = await query(stores, "SELECT * FROM users WHERE id = :id", id=ids["user_id"])
        assert (row.username, row.email, row.password_hash) == (None, None, None)
        assert row.erased_at
        assert await traces(stores, body["username"], body["email"], "of-the-user") == []
