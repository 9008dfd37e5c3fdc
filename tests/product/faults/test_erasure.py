"""Erasure in the middle of an outage, and with a write that lands after it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.product.people import account, sign_in
from tests.product.traces import traces
from tests.under_test import Lab, stores_beside
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.proxy import proxy_to

PURGE_SECONDS = 60


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    """For looking into the stores."""
    async with stores_beside(apart.settings) as stores:
        yield stores


async def test_of_a_user_erased_during_an_outage_nothing_is_left_once_all_is_over(apart: Lab, stores: Stores) -> None:
    body = account()
    async with proxy_to(apart.servers["mongodb"].port) as proxy:
        dsn = apart.settings.dsn("mongodb_dsn").replace(str(apart.servers["mongodb"].port), str(proxy.port))
        async with apart.app(MONGODB_DSN=dsn, PURGE_SECONDS=str(PURGE_SECONDS)) as app:
            proxy.hold(b"Welcome to ChatLingo")
            user_id = (await app.client.post("/users/register", json=body)).json()["user_id"]
            assert proxy.held == 1
            proxy.hold_no_more()
            proxy.black_hole = True  # and not a stopped server, which would still do what it was sent meanwhile
            headers = await leave_traces(app.client, body)
            owed = await query(stores, "SELECT name FROM outbox WHERE aggregate = :a", a=f"user:{user_id}")
            assert {row.name for row in owed} >= {"CreateConversation", "RecordActivity"}
            assert (await app.client.delete("/users/me", headers=headers)).status_code == 202
            assert (await app.client.get("/users/me", headers=headers)).status_code == 401
            proxy.black_hole = False
            await until(lambda: only_the_second_pass_is_owed(stores, user_id), PURGE_SECONDS / 2)

            assert await conversations_of(stores, user_id) == 0
            proxy.release()
            await until(lambda: has_landed(stores, user_id), 10)

            assert await pass_time(stores, user_id, PURGE_SECONDS) == [True, True]
            await until(lambda: nothing_is_owed(stores, user_id), 20)
    assert await traces(stores, user_id, body["username"], body["email"]) == ["postgresql users"]


async def leave_traces(client: httpx.AsyncClient, body: dict[str, str]) -> dict[str, str]:
    headers = await sign_in(client, body["username"], body["password"])
    assert (await client.patch("/users/me", headers=headers, json={"bio": body["email"]})).is_success
    assert (await client.get("/users/me", headers=headers)).is_success
    return headers


async def names_owed(stores: Stores, user_id: str) -> set[str]:
    sql = "SELECT name FROM outbox WHERE payload->>'user_id' = :id"
    return {row.name for row in await query(stores, sql, id=user_id)}


async def only_the_second_pass_is_owed(stores: Stores, user_id: str) -> bool:
    return await names_owed(stores, user_id) == {"EraseDocumentsAgain", "ForgetProfile"}


async def pass_time(stores: Stores, user_id: str, seconds: float) -> list[bool]:
    """Make what is owed later due as it will be in so many seconds. Returns whether it was not yet, and is by then."""
    change = "SET due_at = due_at - make_interval(secs => :seconds) WHERE aggregate = :aggregate AND"
    values = {"aggregate": f"user:{user_id}", "seconds": seconds}
    await query(stores, f"UPDATE outbox {change} due_at IS NOT NULL", **values)
    sql = f"""
    UPDATE outbox_streams {change} pending > 0
    RETURNING due_at > clock_timestamp() - make_interval(secs => :seconds) AND due_at <= clock_timestamp()"""
    return [row[0] for row in await query(stores, sql, **values)]


async def nothing_is_owed(stores: Stores, user_id: str) -> bool:
    """Nor is an empty stream left, whose name would tell of the user."""
    streams = "SELECT 1 FROM outbox_streams WHERE aggregate LIKE :like"
    return not await names_owed(stores, user_id) and not await query(stores, streams, like=f"%{user_id}%")


async def conversations_of(stores: Stores, user_id: str) -> int:
    living = {"user_id": user_id, "deleted": {"$ne": True}}
    return await stores.mongodb.database.conversations.count_documents(living)


async def has_landed(stores: Stores, user_id: str) -> bool:
    """Or has met the mark of the first pass, where a quick relay had written the conversation before the outage."""
    return bool(await stores.mongodb.database.conversations.count_documents({"user_id": user_id}))
