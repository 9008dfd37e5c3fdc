"""`manage.py check`, as an operator runs it: beside a busy service, and when something is wrong."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from tests.product.checking import run_check
from tests.product.commands import manage
from tests.product.people import account, patiently, register
from tests.product.sessions import PATIENT
from tests.product.things import start_conversation
from tests.under_test import Lab, stores_beside
from tristore.models import new_id
from tristore.stores.stores import Stores
from tristore.testing.outbox import query

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


async def live(client: httpx.AsyncClient) -> None:
    """Users who register, talk, delete what was said, change, and leave, one after the other."""
    while True:
        await a_day_of(client, await register(client))


async def a_day_of(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    conversation = await start_conversation(client, headers)
    for _ in range(3):
        await client.post(f"{conversation}/messages", headers=headers, json={"content": "c"})
    await patiently(lambda: client.delete(conversation, headers=headers))
    await patiently(lambda: client.patch("/users/me", headers=headers, json={"bio": secrets.token_hex(4)}))
    if secrets.randbelow(2):
        await patiently(lambda: client.delete("/users/me", headers=headers))


async def test_beside_a_busy_service_nothing_is_wrong(apart: Lab) -> None:
    async with apart.app(**PATIENT, MONGODB_TIMEOUT="5", PURGE_SECONDS="1") as app:
        living = [asyncio.create_task(live(app.client)) for _ in range(4)]
        try:
            looked_at = 0
            while looked_at < 5:
                told = await run_check(apart, settle=1)
                assert [(kind, check["wrong"]) for kind, check in told.items() if check["wrong"]] == []
                looked_at = told["users without any conversation"]["looked_at"]
        finally:
            for each in living:
                each.cancel()
            ends = await asyncio.gather(*living, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def test_what_is_wrong_is_told_with_its_cure_and_is_gone_after_it(apart: Lab, stores: Stores) -> None:
    user = str(new_id())
    await stores.mongodb.database.conversations.insert_one({"_id": str(new_id()), "user_id": user, "title": "t"})
    await query(
        stores, "INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES ('a:1', 'redis', 3, now())"
    )
    code, printed = await manage(apart, "check", "--settle", "0")
    assert code == 1
    head, *rows = printed.splitlines()
    assert head.split() == ["looked", "at", "under", "way", "wrong"]
    assert any(row.split() == ["conversations", "of", "owners", "who", "are", "gone", "1", "0", "1"] for row in rows)
    assert f"  {user}" in rows
    assert "`manage.py erase ID...`" in printed
    assert "  a:1 redis  counts 3, has 0" in rows
    assert "The stores agree" not in printed
    assert await manage(apart, "outbox", "recount", "a:1", "redis") == (0, "It counts 0 now.\n")
    assert await manage(apart, "erase", user, "--yes") == (0, "Erased 1.\n")
    code, printed = await manage(apart, "check", "--settle", "0")
    assert (code, printed.splitlines()[-1]) == (0, "The stores agree.")
    assert await stores.mongodb.database.conversations.count_documents({}) == 0


async def test_users_are_erased_whom_a_restore_has_brought_back(apart: Lab, stores: Stores) -> None:
    async with apart.app() as app:
        body = account()
        user = (await app.client.post("/users/register", json=body)).json()["user_id"]
        assert (await manage(apart, "erase", user))[0] == 1  # nobody has said yes
        assert (await manage(apart, "erase", user, "--yes"))[0] == 0
        form = {"username": body["username"], "password": body["password"]}
        assert (await app.client.post("/auth/token", data=form)).status_code == 401
    [row] = await query(stores, "SELECT username, erased_at IS NOT NULL AS erased FROM users")
    assert tuple(row) == (None, True)
    assert await stores.mongodb.database.conversations.count_documents({"deleted": {"$ne": True}}) == 0


@pytest.mark.parametrize(
    ("name", "dsn"),
    [
        ("mongodb_dsn", "mongodb://127.0.0.1:1/?replicaSet=rs0"),
        ("postgres_dsn", "postgresql+asyncpg://a@127.0.0.1:1/a"),
    ],
)
async def test_without_a_store_nothing_is_said_to_agree(apart: Lab, name: str, dsn: str) -> None:
    broken = apart.on(apart.settings.model_copy(update={name: SecretStr(dsn)}))
    code, printed = await manage(broken, "check")
    assert code == 2
    assert "is not available (" in printed
    assert "127.0.0.1" not in printed
