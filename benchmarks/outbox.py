"""Question: what does a large backlog in the outbox cost? Run: `make bench-outbox` (ARGS=1000 for a quick look).

Method: embedded servers of its own; none, a hundredth and all of N effects owed to MongoDB, two a user as a
registration owes them. Measured on the same servers in one run: one poll and one registration (hashing made trivial,
MongoDB taken for down) at each size, the rate at which the relay of one process drains the backlog, and beside it the
rate of plain `insert_one` with 32 in flight and the same write concern. Last, the peak of the process's memory. The
plots are those of docs/performance.md; the straightforward wiring owes nothing, because it forgets what has failed.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from passlib.context import CryptContext
from sqlalchemy import text

from benchmarks.growth import plot
from database.unit_of_work import UnitOfWork
from models.idempotency import IdempotencyRecord
from models.user import Registration
from services.effects import QUEUES
from services.user_service import UserService
from tests.under_test import own_lab
from tristore.errors import StoreUnavailable
from tristore.idempotency import IdempotencyRepository
from tristore.outbox.relay import EFFECTS_AT_ONCE, STREAMS_AT_ONCE, Outbox
from tristore.outbox.repository import LEASE_TIME, OutboxRepository
from tristore.outbox.statements import LEASE
from tristore.passwords import PasswordHasher
from tristore.stores import mongodb, redis
from tristore.stores.stores import Stores, open_stores
from tristore.testing.guarded import guarded_folder
from wiring import Services

OWE = text("""
WITH users AS (SELECT gen_random_uuid() AS id FROM generate_series(1, :users)), streams AS (
  INSERT INTO outbox_streams (aggregate, store, pending, due_at)
  SELECT 'user:' || id, 'mongodb', 2, clock_timestamp() FROM users
)
INSERT INTO outbox (aggregate, store, name, payload)
SELECT 'user:' || id, 'mongodb', name, CASE name
  WHEN 'CreateConversation' THEN jsonb_build_object('conversation', jsonb_build_object('id', gen_random_uuid(),
    'user_id', id, 'title', 'Welcome to ChatLingo', 'created_at', now(), 'updated_at', now()))
  ELSE jsonb_build_object('activity', jsonb_build_object('id', gen_random_uuid(), 'user_id', id,
    'action', 'registered', 'at', now())) END
FROM users, unnest(ARRAY['CreateConversation', 'RecordActivity']) AS name
""")


async def main(effects: int) -> None:
    with guarded_folder("tristore-bench-") as folder:
        async with own_lab(folder, mongodb_timeout=5) as lab, open_stores(lab.settings) as stores:
            results = await measure(stores, Services(lab.settings, stores), effects)
    print(json.dumps(results, indent=2))


async def measure(stores: Stores, services: Any, effects: int) -> dict[str, Any]:
    repository = OutboxRepository(stores.postgres, QUEUES, 12)
    users = service(services, stores, repository)
    sizes = (0, effects // 100, effects)
    polling, registering = {}, {}
    for size, before in zip(sizes, (0, *sizes), strict=False):
        await owe(stores, size - before)
        polling[f"{size:,}"] = await polls(stores)
        await registrations(users, 50)  # to connect and compile
        registering[f"{size:,}"] = await registrations(users, 300)
    insert_rate = await plain_inserts(stores, min(effects, 20_000))
    owed = (await repository.backlog())["backlog"]
    started = time.monotonic()
    await services.outbox.drain()
    drain_rate = owed / (time.monotonic() - started)
    print(
        plot("Poll the outbox, by effects owed", [polling]), plot("Register, by effects owed", [registering]), sep="\n"
    )
    return {
        "effects_owed": effects,
        "registration_ratio": round(registering[f"{effects:,}"] / registering["0"], 2),
        "plain_inserts_per_second": round(insert_rate),
        "drained_per_second": round(drain_rate),
        "drain_ratio": round(drain_rate / insert_rate, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


async def owe(stores: Stores, effects: int) -> None:
    async with stores.postgres.background.connect() as connection:  # in autocommit
        await connection.execute(OWE, {"users": effects // 2})
        await connection.execute(text("ANALYZE outbox, outbox_streams"))


def service(services: Any, stores: Stores, repository: OutboxRepository) -> UserService:
    """Registration as the app has it, with hashing made trivial and MongoDB taken for down: its effects stay owed."""
    outbox = Outbox(
        repository=repository,
        targets=services.outbox._delivery._targets,
        pings={"redis": partial(redis.ping, stores.redis), "mongodb": partial(mongodb.ping, stores.mongodb)},
        deadline=0.5,
        poll_seconds=1,
    )
    outbox._pauses.pause(StoreUnavailable("mongodb", "unreachable"))
    return UserService(
        unit_of_work=partial(UnitOfWork, stores.postgres, outbox.record),
        users=services.users._users,
        idempotency=IdempotencyRepository(IdempotencyRecord),
        cache=services.users._cache,
        outbox=outbox,
        invalidation=services.users._invalidation,
        hasher=PasswordHasher("chatlingo", CryptContext(schemes=["plaintext"])),
        auth=services.auth,
        sessions=services.users._sessions,
        links=services.users._links,
        may_mail=None,
        is_private=False,
    )


async def registrations(users: UserService, times: int) -> float:
    async def register() -> None:
        name = f"u{time.monotonic_ns()}"
        await users.register_user(Registration(username=name, email=f"{name}@example.com", password="correct horse"))

    return await timings(register, times)


async def polls(stores: Stores) -> float:
    """The relay's poll, rolled back, so that each one finds the same."""

    async def poll() -> None:
        async with stores.postgres.engine.connect() as connection:
            limits = {"store": "mongodb", "streams": STREAMS_AT_ONCE, "effects": EFFECTS_AT_ONCE, "lease": LEASE_TIME}
            await connection.execute(LEASE, limits | {"token": "00000000-0000-0000-0000-000000000000"})

    return await timings(poll, 50)


async def plain_inserts(stores: Stores, documents: int) -> float:
    numbers = iter(range(documents))

    async def insert() -> None:
        for number in numbers:
            await stores.mongodb.database.plain.insert_one({"n": number, "title": "Welcome to ChatLingo"})

    started = time.monotonic()
    await asyncio.gather(*(insert() for _ in range(32)))
    return documents / (time.monotonic() - started)


async def timings(action: Callable[[], Awaitable[None]], times: int) -> float:
    """The median, in milliseconds, of one after the other."""
    values = []
    for _ in range(times):
        started = time.monotonic()
        await action()
        values.append((time.monotonic() - started) * 1000)
    return statistics.median(values)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
