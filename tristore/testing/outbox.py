"""Effects and outboxes for tests: handlers that note what they do, and fail as told."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, cast

from sqlalchemy import text

from services.effects import Targets
from tristore.outbox.effects import Effect, Owed
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.outbox.tables import TargetStore
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.stores import Stores


class Journal:
    """Stands for the repositories: remembers what was applied, by stream, and how often each."""

    def __init__(self) -> None:
        self.applied: dict[str, list[int]] = defaultdict(list)
        self.before: Callable[[str, int], Awaitable[None]] = self.nothing

    @staticmethod
    async def nothing(stream: str, number: int) -> None:
        pass

    async def note(self, stream: str, number: int) -> None:
        await self.before(stream, number)
        self.applied[stream].append(number)

    def firsts(self, stream: str) -> list[int]:
        return list(dict.fromkeys(self.applied[stream]))

    def repeats(self) -> int:
        return sum(len(numbers) - len(set(numbers)) for numbers in self.applied.values())


class Noted(Effect):
    store: ClassVar[TargetStore] = "mongodb"
    on: str
    number: int

    @property
    def aggregate(self) -> str:
        return self.on

    async def apply(self, to: Targets) -> None:
        await cast(Journal, to).note(f"{self.on}/{self.store}", self.number)


class NotedInRedis(Noted):
    store: ClassVar[TargetStore] = "redis"


class NotedLater(Noted):
    @property
    def delay(self) -> float:
        return 60


async def well() -> None:
    """A ping that is answered."""


def make_outbox(
    stores: Stores,
    journal: Any,
    *,
    max_attempts: int = 3,
    deadline: float = 0.5,
    pings: dict[TargetStore, Callable[[], Awaitable[None]]] | None = None,
) -> Outbox:
    return Outbox(
        repository=OutboxRepository(stores.postgres, max_attempts),
        targets=journal,
        pings=pings or {"redis": well, "mongodb": well},
        deadline=deadline,
        poll_seconds=0.1,
    )


async def write(outbox: Outbox, stores: Stores, effects: Sequence[Effect], *, deliver: bool = True) -> Sequence[Owed]:
    async with PostgresUnitOfWork(stores.postgres, outbox.record) as uow:
        uow.effects += effects
        await uow.commit()
    if deliver:
        await outbox.deliver(uow.owed)
    return uow.owed


async def query(stores: Stores, sql: str, **parameters: Any) -> Sequence[Any]:
    async with stores.postgres.background.connect() as connection:
        result = await connection.execute(text(sql), parameters)
        return result.all() if result.returns_rows else []


async def pass_leases(stores: Stores) -> None:
    """As if the time of every lease and every wait had come."""
    await query(stores, "UPDATE outbox SET due_at = clock_timestamp() - interval '2 seconds' WHERE due_at IS NOT NULL")
    await query(stores, "UPDATE outbox_streams SET due_at = clock_timestamp() - interval '2 seconds'")


async def until_empty(stores: Stores, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while (await query(stores, "SELECT count(*) FROM outbox"))[0][0]:
            await asyncio.sleep(0.02)
