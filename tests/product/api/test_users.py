"""Registration and profiles through the API, checked on the stores themselves."""

import asyncio
import uuid

import httpx
import pytest
from sqlalchemy import text

from models.user import FullProfile
from services.user_service import WELCOME_TITLE
from tests.product.people import account, register, register_admin
from tests.product.things import count
from tristore.stores.stores import Stores


async def test_registers_in_all_three_stores(client: httpx.AsyncClient, stores: Stores) -> None:
    answer = await client.post("/users/register", json=account(cefr_level="B1", language_preference="fr"))
    assert answer.status_code == 201
    ids = answer.json()
    assert set(ids) == {"user_id", "welcome_conversation_id"}
    assert uuid.UUID(ids["user_id"]).version == 7
    assert await count(stores, "SELECT count(*) FROM users WHERE id = :id", id=ids["user_id"]) == 1
    assert await count(stores, "SELECT count(*) FROM profiles WHERE user_id = :id", id=ids["user_id"]) == 1
    welcome = await stores.mongodb.database.conversations.find_one({"_id": ids["welcome_conversation_id"]})
    assert welcome
    assert welcome["user_id"] == ids["user_id"]
    assert await stores.mongodb.database.activity.count_documents({"user_id": ids["user_id"]}) == 1
    cached = [key async for key in stores.redis.client.scan_iter(match=f"*{ids['user_id']}*")]
    assert len(cached) == 1


async def test_the_password_is_kept_as_an_argon2id_hash_only(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client)
    async with stores.postgres.engine.connect() as connection:
        kept = await connection.scalar(
            text("SELECT password_hash FROM users WHERE id = :id"), {"id": headers["X-User-Id"]}
        )
    assert str(kept).startswith("$argon2id$v=19$m=64,t=1,p=1$")  # see QUICK_HASH
    assert "password" not in (await client.get("/users/me", headers=headers)).text


async def test_reads_the_profile_the_same_with_and_without_the_cache(client: httpx.AsyncClient, stores: Stores) -> None:
    headers = await register(client, cefr_level="C1")
    warmed = await client.get("/users/me", headers=headers)
    await stores.redis.client.flushall()
    loaded = await client.get("/users/me", headers=headers)
    cached = await client.get("/users/me", headers=headers)
    assert warmed.content == loaded.content == cached.content
    profile = FullProfile.model_validate_json(warmed.content)
    assert (profile.level, profile.language, profile.role, profile.version) == ("C1", "en", "learner", 1)


@pytest.mark.parametrize("field", ["username", "email"])
async def test_a_taken_name_is_refused_whatever_its_case(client: httpx.AsyncClient, stores: Stores, field: str) -> None:
    first = account()
    answers = await asyncio.gather(
        client.post("/users/register", json=first),
        client.post("/users/register", json=account(**{field: first[field].swapcase()})),
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["field"] == field
    assert await count(stores, f"SELECT count(*) FROM users WHERE lower({field}) = lower(:it)", it=first[field]) == 1
    made = next(answer for answer in answers if answer.status_code == 201).json()
    conversations = stores.mongodb.database.conversations
    assert await conversations.count_documents({"user_id": made["user_id"]}) == 1
    users = await count(stores, "SELECT count(*) FROM users WHERE erased_at IS NULL")
    assert await count(stores, "SELECT count(*) FROM profiles") == users
    welcomes = {"title": WELCOME_TITLE, "deleted": {"$ne": True}}
    assert await conversations.count_documents(welcomes) == users


async def test_changes_what_was_sent_and_keeps_the_rest(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    before = (await client.get("/users/me", headers=headers)).json()
    answer = await client.patch("/users/me", headers=headers, json={"level": "B2", "bio": "Hola"})
    after = (await client.get("/users/me", headers=headers)).json()
    assert answer.json() == after
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"level", "bio", "version", "updated_at"}
    assert (after["level"], after["bio"], after["version"]) == ("B2", "Hola", 2)


async def test_every_read_after_a_change_sees_it(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    for i in range(30):
        await client.patch("/users/me", headers=headers, json={"display_name": f"n{i}"})
        reads = await asyncio.gather(*(client.get("/users/me", headers=headers) for _ in range(5)))
        assert {read.json()["display_name"] for read in reads} == {f"n{i}"}


async def test_a_change_to_a_taken_name_changes_nothing(client: httpx.AsyncClient) -> None:
    taken = account()
    await client.post("/users/register", json=taken)
    headers = await register(client)
    answer = await client.patch("/users/me", headers=headers, json={"username": taken["username"], "bio": "x"})
    assert (answer.status_code, answer.json()["field"]) == (409, "username")
    assert (await client.get("/users/me", headers=headers)).json()["version"] == 1


async def test_others_see_the_public_part_only(client: httpx.AsyncClient, stores: Stores) -> None:
    ana, ben = await register(client), await register(client)
    own = await client.get(f"/users/{ana['X-User-Id']}", headers=ana)
    public = await client.get(f"/users/{ana['X-User-Id']}", headers=ben)
    assert "email" in own.json()
    assert set(public.json()) == {"id", "username", "display_name", "bio", "language", "level", "created_at"}
    admin = await register_admin(client, stores)
    assert (await client.get(f"/users/{ana['X-User-Id']}", headers=admin)).json() == own.json()


async def test_an_unknown_user_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/users/{uuid.uuid4()}", headers=await register(client))
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
