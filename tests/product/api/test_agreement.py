"""What disagrees between the stores is found: each kind is made in the stores themselves."""

from collections.abc import AsyncIterator

import httpx
import pytest

from commands.checks import WITHOUT_OWNER, checks
from config import Settings
from main import create_app
from services.personal import PERSONAL
from tests.product.checking import look, wrong
from tests.product.people import account, register, register_admin, sign_in
from tests.product.routes import keep_link, stock
from tests.product.things import start_conversation
from tests.samples import QUICK
from tests.under_test import fresh_databases
from tristore.models import new_id, now
from tristore.personal import Documents, Rows
from tristore.stores.stores import Stores, open_stores
from tristore.testing.outbox import query, until_empty
from tristore.testing.stores import Servers, client_of
from wiring import Services

ERASED_BY_HAND = """
UPDATE users SET erased_at = now(), username = NULL, email = NULL, password_hash = NULL WHERE id = :id
"""
PARKED = """
INSERT INTO outbox_streams (aggregate, store, pending, due_at, dead) VALUES (:a, 'mongodb', 1, now(), true)
ON CONFLICT (aggregate, store) DO UPDATE SET pending = 1, dead = true
"""
MANY_USERS = """
INSERT INTO users (id, username, email, password_hash)
SELECT gen_random_uuid(), 'u' || n, 'u' || n || '@example.org', 'h' FROM generate_series(1, 1200) n
"""


@pytest.fixture
async def apart(servers: Servers) -> AsyncIterator[Settings]:
    """Databases of its own, in which nothing is wrong yet."""
    patient = {"postgres_request_deadline": 10, "mongodb_timeout": 3, "effects_deadline": 2.5}
    async with fresh_databases(servers, purge_seconds=0.5, **patient | QUICK) as settings:
        yield settings


@pytest.fixture
async def stores(apart: Settings) -> AsyncIterator[Stores]:
    async with open_stores(apart) as stores:
        yield stores


@pytest.fixture
async def client(apart: Settings, stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(apart, stores)) as client:
        yield client


async def joins(client: httpx.AsyncClient) -> dict[str, str]:
    """As `register`, with a key, which is kept."""
    body = account()
    made = await client.post("/users/register", headers={"Idempotency-Key": body["username"]}, json=body)
    return {"X-User-Id": made.json()["user_id"], **await sign_in(client, body["username"], body["password"])}


def places() -> set[str]:
    """Where something of a user may be left that must not be."""
    found: set[str] = set()
    for entity in PERSONAL:
        kept = set(entity.keeps) if isinstance(entity, Rows) else set(WITHOUT_OWNER)
        found |= set(entity.stored_in) - kept
    return found


def of_nobody(*names: str) -> set[str]:
    return {f"{name} of owners who are gone" for name in names}


async def test_whatever_users_do_the_stores_agree(apart: Settings, stores: Stores, client: httpx.AsyncClient) -> None:
    admin = await register_admin(client, stores)
    stays, leaves, deletes = [await joins(client) for _ in range(3)]
    for headers in (stays, leaves):
        await stock(client, headers, admin)
        await keep_link(stores, headers["X-User-Id"])
    assert (await client.delete("/users/me", headers=leaves)).status_code == 202
    [first] = (await client.get("/conversations", headers=deletes)).json()["items"]
    assert (await client.delete(f"/conversations/{first['id']}", headers=deletes)).status_code == 204
    results = await look(apart, stores)
    assert [kind for kind, result in results.items() if result.wrong] == []
    await until_empty(stores, 60)
    results = await look(apart, stores)
    assert [kind for kind, result in results.items() if result.wrong or result.under_way] == []
    assert results["users without any conversation"].looked_at == 3  # the one who left is none any more
    for place in places():
        assert results[f"{place} of owners who are gone"].looked_at, place


async def test_every_place_of_a_user_is_looked_at(apart: Settings, stores: Stores) -> None:
    kinds = [check.kind for check in checks(Services(apart, stores))]
    assert of_nobody(*places()) == {kind for kind in kinds if kind.endswith("of owners who are gone")}
    assert len(kinds) == len(set(kinds))
    assert set(WITHOUT_OWNER) <= {name for each in PERSONAL if isinstance(each, Documents) for name in each.stored_in}


async def test_what_is_left_of_an_erased_user_is_found_wherever_it_is(
    apart: Settings, stores: Stores, client: httpx.AsyncClient
) -> None:
    headers = await joins(client)
    await stock(client, headers, await register_admin(client, stores))
    await keep_link(stores, headers["X-User-Id"])
    await until_empty(stores, 60)
    await query(stores, ERASED_BY_HAND, id=headers["X-User-Id"])
    found = await wrong(apart, stores)
    assert found.keys() == of_nobody(*places())
    assert all(list(keys) == [headers["X-User-Id"]] for keys in found.values())


async def test_what_mongodb_has_of_users_whom_postgresql_never_had_is_found(apart: Settings, stores: Stores) -> None:
    user, conversation = str(new_id()), str(new_id())
    await stores.mongodb.database.conversations.insert_one({"_id": conversation, "user_id": user, "title": "t"})
    await stores.mongodb.database.activity.insert_one({"_id": str(new_id()), "user_id": "no id", "at": now()})
    found = await wrong(apart, stores)
    assert found.keys() == of_nobody("conversations", "activity")
    assert [list(keys) for keys in found.values()] == [["no id"], [user]]  # in the order of PERSONAL


async def test_users_whose_first_conversation_is_lost_are_found(
    apart: Settings, stores: Stores, client: httpx.AsyncClient
) -> None:
    lost, well = [(await register(client))["X-User-Id"] for _ in range(2)]
    await until_empty(stores, 60)
    await stores.mongodb.database.conversations.delete_many({"user_id": lost})
    assert await wrong(apart, stores) == {"users without any conversation": {lost: ""}}
    # What is lost for so long cannot be told from what its user has deleted.
    await query(stores, "UPDATE users SET created_at = now() - interval '91 days' WHERE id = :id", id=lost)
    assert await wrong(apart, stores) == {}
    assert well != lost


async def test_messages_whose_conversation_is_lost_are_found(
    apart: Settings, stores: Stores, client: httpx.AsyncClient
) -> None:
    headers = await register(client)
    conversation = await start_conversation(client, headers)
    for _ in range(3):
        await client.post(f"{conversation}/messages", headers=headers, json={"content": "c"})
    id_ = conversation.rpartition("/")[2]
    await stores.mongodb.database.conversations.delete_one({"_id": id_})
    assert await wrong(apart, stores) == {"messages of no conversation": {id_: ""}}


async def test_what_is_owed_is_under_way_and_no_disagreement(
    apart: Settings, stores: Stores, client: httpx.AsyncClient
) -> None:
    user = (await register(client))["X-User-Id"]
    await until_empty(stores, 60)
    await stores.mongodb.database.conversations.delete_many({})
    await query(stores, PARKED, a=f"user:{user}")
    effect = "INSERT INTO outbox (aggregate, store, name, payload) VALUES (:a, 'mongodb', 'Parked', '{}')"
    await query(stores, effect, a=f"user:{user}")
    results = await look(apart, stores)
    assert not any(result.wrong for result in results.values())
    assert results["users without any conversation"].under_way == 1


async def test_more_than_a_batch_of_users_is_looked_at(apart: Settings, stores: Stores) -> None:
    await query(stores, MANY_USERS)
    ids = [str(row.id) for row in await query(stores, "SELECT id FROM users ORDER BY id")]
    heads = [{"_id": str(new_id()), "user_id": id_, "title": "t"} for id_ in ids if id_ != ids[700]]
    await stores.mongodb.database.conversations.insert_many(heads)
    results = await look(apart, stores)
    assert results["users without any conversation"].looked_at == 1200
    assert results["users without any conversation"].wrong == {ids[700]: ""}
    assert results["conversations of owners who are gone"].looked_at == 1199


async def test_it_needs_no_scan_of_a_collection(stores: Stores) -> None:
    """Each batch is read in an index, or the last of a large collection would take as long as all of them."""
    database = stores.mongodb.database
    for collection, name in (("conversations", "user_id"), ("activity", "user_id"), ("messages", "conversation_id")):
        only = {"_id": 0, name: 1}
        plan = await database[collection].find({name: {"$gt": "x"}}, only).sort(name, 1).limit(5).explain()
        stages = str(plan["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in stages, (collection, stages)
        assert "COLLSCAN" not in stages
        assert "'SORT'" not in stages
        assert "FETCH" not in stages
