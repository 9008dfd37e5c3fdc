"""Nothing is written for a user whom an erasure may take away at the same moment."""

import asyncio
import uuid
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from database.unit_of_work import UnitOfWork
from models.activity import happened
from services.effects import QUEUES, RecordActivity
from tests.product.for_user import REFUSED
from tests.product.people import register
from tristore.errors import NotFound
from tristore.outbox.repository import OutboxRepository
from tristore.stores.stores import Stores
from tristore.testing.lab import until

ADD_SESSION = text(
    "INSERT INTO sessions (id, user_id, token_hash, expires_at)"
    " VALUES (gen_random_uuid(), :user, sha256(gen_random_uuid()::text::bytea), now())"
)


@pytest.fixture
def refused() -> Iterator[list[str]]:
    """What the database has refused, which is meant here."""
    yield REFUSED
    assert len(REFUSED) == 1
    REFUSED.clear()


@pytest.fixture
async def user_id(client: httpx.AsyncClient) -> uuid.UUID:
    return uuid.UUID((await register(client))["X-User-Id"])


@pytest.fixture
def unit_of_work(stores: Stores) -> partial[UnitOfWork]:
    return partial(UnitOfWork, stores.postgres, OutboxRepository(stores.postgres, QUEUES, 3).record)


def test_each_table_that_refers_to_users_is_watched(tables_of_users: list[str]) -> None:
    assert {"idempotency_keys", "profiles", "sessions"} <= set(tables_of_users)


async def test_a_row_without_the_lock_is_refused_in_words(
    unit_of_work: partial[UnitOfWork], user_id: uuid.UUID, refused: list[str]
) -> None:
    with pytest.raises(DBAPIError, match=r"A row of sessions .* Begin it with `await uow.for_user\(user_id\)`"):
        async with unit_of_work() as uow:
            await uow.session.execute(ADD_SESSION, {"user": user_id})


async def test_an_effect_without_the_lock_is_refused_in_words(
    unit_of_work: partial[UnitOfWork], user_id: uuid.UUID, refused: list[str]
) -> None:
    with pytest.raises(DBAPIError, match=r"The effect RecordActivity .* `await uow.for_user\(user_id\)`"):
        async with unit_of_work() as uow:
            uow.effects.append(RecordActivity(activity=happened(user_id, "signed_in")))
            await uow.commit()


async def test_the_lock_of_another_transaction_or_user_does_not_count(
    client: httpx.AsyncClient, unit_of_work: partial[UnitOfWork], user_id: uuid.UUID, refused: list[str]
) -> None:
    other = uuid.UUID((await register(client))["X-User-Id"])
    async with unit_of_work() as first:
        await first.for_user(user_id)
        with pytest.raises(DBAPIError, match="A row of sessions"):
            async with unit_of_work() as second:
                await second.for_user(other)
                await second.session.execute(ADD_SESSION, {"user": user_id})


async def test_many_may_hold_a_user_at_once(unit_of_work: partial[UnitOfWork], user_id: uuid.UUID) -> None:
    async with unit_of_work() as first, unit_of_work() as second:
        for uow in (first, second):
            await uow.for_user(user_id)
        await first.session.execute(ADD_SESSION, {"user": user_id})


async def test_an_erasure_waits_for_who_holds_the_user_and_nobody_holds_it_after(
    client: httpx.AsyncClient, unit_of_work: partial[UnitOfWork]
) -> None:
    headers = await register(client)
    user_id = uuid.UUID(headers["X-User-Id"])
    async with unit_of_work() as uow:
        await uow.for_user(user_id)
        erasing = asyncio.create_task(client.delete("/users/me", headers=headers))

        async def is_waiting() -> bool:
            locks = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            return await uow.session.scalar(text(locks)) is not None

        await until(is_waiting, 10)
        assert not erasing.done()
    assert (await erasing).status_code == 202
    for nobody in (user_id, uuid.uuid4()):
        with pytest.raises(NotFound):
            async with unit_of_work() as uow:
                await uow.for_user(nobody)
