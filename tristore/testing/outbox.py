"""Effects and outboxes for tests: handlers that note what they do, and fail as told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

from sqlalchemy import text

from tristore.mail.effects import MAIL
from tristore.outbox.effects import Effect, Owed
from tristore.outbox.pauses import Ping
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.effects import QUEUE
from tristore.stores.stores import Stores, open_stores
from tristore.testing.stores import Servers, own_databases

QUEUES = ("redis", "mongodb", QUEUE, MAIL)


class Journal:
    """Stands for what effects write to: remembers what was applied, by stream, and how often each."""

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
    """The journal notes it as its number, in the stream `on/queue`."""

    queue: ClassVar[str] = "mongodb"
    on: str
    number: int

    @property
    def aggregate(self) -> str:
        return aggregate_of(self.on)

    async def apply(self, to: Journal) -> None:
        await to.note(f"{self.on}/{self.queue}", self.number)


class NotedInRedis(Noted):
    queue: ClassVar[str] = "redis"


class NotedInSaga(Noted):
    queue: ClassVar[str] = QUEUE


class NotedLater(Noted):
    @property
    def delay(self) -> float:
        return 60


def aggregate_of(on: str) -> str:
    return f"noted:{on}"


async def well() -> None:
    """A ping that is answered."""


def outbox_repository(stores: Stores, max_attempts: int = 3) -> OutboxRepository:
    return OutboxRepository(stores.postgres, QUEUES, max_attempts)


def make_outbox(
    stores: Stores,
    targets: object,
    *,
    max_attempts: int = 3,
    deadline: float = 3,
    pings: Mapping[str, Ping] | None = None,
) -> Outbox:
    return Outbox(
        repository=outbox_repository(stores, max_attempts),
        targets=targets,
        pings=pings or {"redis": well, "mongodb": well},
        deadline=deadline,
        poll_seconds=0.1,
    )


@asynccontextmanager
async def stores_apart(servers: Servers) -> AsyncIterator[Stores]:
    """Stores whose outbox no other relay reads. Many writers of one stream may wait long for each other."""
    async with own_databases(servers, postgres_request_deadline=10) as settings, open_stores(settings) as stores:
        yield stores


async def empty(stores: Stores) -> Stores:
    """The stores, without anything owed."""
    await query(stores, "TRUNCATE outbox, outbox_streams")
    return stores


async def write(outbox: Outbox, stores: Stores, effects: Sequence[Effect], *, deliver: bool = True) -> Sequence[Owed]:
    async with PostgresUnitOfWork(stores.postgres, outbox.record) as uow:
        uow.effects += effects
        await uow.commit()
    if deliver:
        await outbox.deliver(uow.owed)
    return uow.owed


async def query(stores: Stores, sql: str, **parameters: object) -> Sequence[Any]:
    async with stores.postgres.background.connect() as connection:
        result = await connection.execute(text(sql), parameters)
        return result.all() if result.returns_rows else []


async def park(stores: Stores, aggregate: str | None = None, error: str = "ValueError") -> None:
    """As if an effect's own error had stopped the streams of this aggregate, or all. They wait for no store, so no
    store that comes back revives them; whoever holds a lease finds it gone."""
    sql = """UPDATE outbox_streams SET dead = true, attempts = 12, refusals = 0, waits_for = NULL, last_error = :error,
        lease_token = NULL, lease_until = NULL
      WHERE pending > 0 AND aggregate = coalesce(:aggregate, aggregate)"""
    await query(stores, sql, aggregate=aggregate, error=error)


async def forget_effects(stores: Stores) -> None:
    """As if all were applied. TRUNCATE would lock both tables as a whole, and a relay has its own order."""
    await query(stores, "DELETE FROM outbox_streams")
    await query(stores, "DELETE FROM outbox")


async def pass_leases(stores: Stores) -> None:
    """As if the time of every lease and every wait had come."""
    await query(stores, "UPDATE outbox SET due_at = clock_timestamp() - interval '2 seconds' WHERE due_at IS NOT NULL")
    await query(stores, "UPDATE outbox_streams SET due_at = clock_timestamp() - interval '2 seconds'")


async def until_delivered(stores: Stores, seconds: float = 30) -> None:
    """As if the leases of a process that was killed ran out again and again."""
    async with asyncio.timeout(seconds):
        while True:
            await pass_leases(stores)
            with suppress(TimeoutError):
                return await until_empty(stores, 3)


async def until_empty(stores: Stores, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while (await query(stores, "SELECT count(*) FROM outbox"))[0][0]:
            await asyncio.sleep(0.02)
