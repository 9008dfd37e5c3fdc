"""The unit of work on the real PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import text

from tristore.errors import StoreUnavailable
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.postgres import pool_use, start_budget
from tristore.stores.stores import Stores
from tristore.testing.outbox import Noted, outbox_repository, query


def unit_of_work(stores: Stores) -> PostgresUnitOfWork:
    return PostgresUnitOfWork(stores.postgres, outbox_repository(stores).record)


@pytest.fixture
async def table(stores: Stores) -> str:
    async with stores.postgres.engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS scratch"))
        await connection.execute(text("CREATE TABLE scratch (id int PRIMARY KEY)"))
    return "scratch"


async def rows(stores: Stores) -> int:
    async with stores.postgres.engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM scratch")) or 0)


async def test_rolls_back_uncommitted_work_by_default(stores: Stores, table: str) -> None:
    async with unit_of_work(stores) as uow:
        await uow.session.execute(text("INSERT INTO scratch VALUES (1)"))
    assert await rows(stores) == 0


async def test_rolls_back_on_error(stores: Stores, table: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(stores) as uow:
            await uow.session.execute(text("INSERT INTO scratch VALUES (1)"))
            raise ZeroDivisionError
    assert await rows(stores) == 0


async def test_keeps_committed_work(stores: Stores, table: str) -> None:
    async with unit_of_work(stores) as uow:
        await uow.session.execute(text("INSERT INTO scratch VALUES (1)"))
        await uow.commit()
    assert await rows(stores) == 1


async def test_gives_its_connection_back_in_every_case(stores: Stores, table: str) -> None:
    _, size = pool_use(stores.postgres)
    for _ in range(3 * size):
        with pytest.raises(ZeroDivisionError):
            async with unit_of_work(stores) as uow:
                await uow.session.execute(text("SELECT 1"))
                raise ZeroDivisionError
    assert pool_use(stores.postgres) == (0, size)


async def test_a_request_waits_for_postgresql_no_longer_than_its_budget(stores: Stores) -> None:
    async def request() -> float:
        start_budget(0.3)
        started = asyncio.get_running_loop().time()
        for expected in ("timeout", "timeout"):  # the second finds nothing left
            with pytest.raises(StoreUnavailable, match=expected):
                async with unit_of_work(stores) as uow:
                    await uow.session.execute(text("SELECT pg_sleep(2)"))
        return asyncio.get_running_loop().time() - started

    assert await asyncio.create_task(request()) < 0.5


async def test_leaving_with_effects_and_without_commit_is_an_error_that_names_the_cure(stores: Stores) -> None:
    with pytest.raises(RuntimeError, match=r"without a commit, so Noted will not be applied.*`await uow.commit\(\)`"):
        async with unit_of_work(stores) as uow:
            uow.effects.append(Noted(on="left", number=1))


async def test_what_was_recorded_early_must_be_committed_too(stores: Stores) -> None:
    with pytest.raises(RuntimeError, match="Noted will not be applied"):
        async with unit_of_work(stores) as uow:
            uow.effects.append(Noted(on="left", number=1))
            await uow.record()
    assert await query(stores, "SELECT 1 FROM outbox WHERE aggregate = 'noted:left'") == []


async def test_an_error_on_its_way_is_not_hidden_by_what_was_owed(stores: Stores) -> None:
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work(stores) as uow:
            uow.effects.append(Noted(on="left", number=1))
            raise ZeroDivisionError
