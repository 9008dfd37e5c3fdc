"""Deliberately broken variants of the app, each a mistake that people make. The lab must find every one."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Self

from fastapi import FastAPI
from pymongo import WriteConcern
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

import dependencies
from database.stores import Stores
from database.unit_of_work import PostgresUnitOfWork
from models.outbox import Stream, TargetStore
from repositories import seat_repo
from repositories.cache_repo import CacheRepository, Load, Versioned
from repositories.conversation_repo import ConversationRepository
from repositories.outbox_repo import Leased, OutboxRepository, Outcome
from repositories.seat_repo import SeatRepository
from services.errors import StoreUnavailable


class EffectsOutsideTransaction(PostgresUnitOfWork):
    """Commits, and then records what it owes."""

    async def commit(self) -> None:
        await self.session.commit()
        if self.effects:
            self.owed = await self._record(self.session, self.effects)
            await self.session.commit()


_after_response: ContextVar[list[Callable[[], Awaitable[None]]] | None] = ContextVar("after_response", default=None)


class CommitAfterResponse(PostgresUnitOfWork):
    """Commits where a `yield` dependency would: when the client has its answer."""

    async def __aenter__(self) -> Self:  # without the request's deadline, whose block is over by then
        connection = await self._exits.enter_async_context(self._postgres.engine.connect())
        self.session = await self._exits.enter_async_context(AsyncSession(connection, expire_on_commit=False))
        return self

    async def commit(self) -> None:
        waiting = _after_response.get()
        if waiting is None:
            await super().commit()
            return
        if self.effects:
            self.owed = await self._record(self.session, self.effects)
        exits, session = self._exits.pop_all(), self.session

        async def finish() -> None:
            async with exits:
                await session.commit()

        waiting.append(finish)


class AfterResponse:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting: list[Callable[[], Awaitable[None]]] = []
        _after_response.set(waiting)
        await self._app(scope, receive, send)
        for finish in waiting:
            await finish()


class RelayWithoutStreams(OutboxRepository):
    """Hands out effects, not streams: one at a time to whoever comes, several of an aggregate at once."""

    async def lease(self, store: TargetStore, streams: int, effects: int) -> dict[Stream, list[Leased]]:
        due = text(
            "SELECT e.id, e.aggregate, e.name, CAST(e.payload AS text) FROM outbox e"
            " JOIN outbox_streams s USING (aggregate, store)"
            " WHERE e.store = :store AND s.due_at <= clock_timestamp() ORDER BY random() LIMIT :limit"
        )
        rows = await self._execute(due, {"store": store, "limit": streams})
        return {Stream(row.aggregate, store, uuid.uuid4()): [Leased(row.id, row.name, row.payload)] for row in rows}

    async def settle(self, outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, bool]]:
        done = text(
            "WITH done AS (DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[])) RETURNING aggregate, store)"
            " UPDATE outbox_streams s SET pending = s.pending - n, lease_token = NULL, lease_until = NULL,"
            " due_at = clock_timestamp()"
            " FROM (SELECT aggregate, store, count(*) AS n FROM done GROUP BY 1, 2) d"
            " WHERE s.aggregate = d.aggregate AND s.store = d.store RETURNING s.store"
        )
        ids = [id_ for outcome in outcomes for id_ in outcome.done]
        await self._execute(done, {"ids": sorted(ids)})
        return []


PLAIN_SET = "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"


class DelInsteadOfFence(CacheRepository):
    """What most do: SET after a miss, DEL after a write."""

    async def get_or_load(self, key: str, load: Load, ttl: float, near: float = 0) -> bytes | None:
        try:
            entry: bytes | None = await self._call(key, lambda client, names: client.get(names[0]))
        except StoreUnavailable:
            entry = None
        if entry:
            return entry.partition(b":")[2] if entry.startswith(b"v") else None
        found = await load()
        await self.fill(key, "", found, ttl)
        return found.body if found else None

    async def lease(self, key: str) -> str | None:
        return "none"

    async def fill(self, key: str, token: str, found: Versioned | None, ttl: float) -> bool:
        entry = b"v%d:%b" % (found.version, found.body) if found else b"n0:"

        try:
            await self._call(
                key,
                lambda client, names: client.register_script(PLAIN_SET)(
                    keys=names[:1], args=(entry, round(ttl * 1000))
                ),
            )
        except StoreUnavailable:
            return False
        return True

    async def invalidate(self, key: str, version: int, *, heard: bool = False) -> None:
        await self.forget(key)


class ErasureOnce(ConversationRepository):
    """Erases for good at the first pass; there is no second."""

    async def erase(self, owner: uuid.UUID, *, for_good: bool) -> None:
        if not for_good:
            await super().erase(owner, for_good=True)


class StepRepeated(SeatRepository):
    """Takes seats as often as it is asked to."""

    async def change(
        self, course_id: uuid.UUID, marker: str, quantity: int, until: datetime, capacity: int | None = None
    ) -> seat_repo.Outcome:
        async with self._mongodb.operation() as database:
            await database.seats.update_one({"_id": str(course_id)}, {"$pull": {"markers": {"id": marker}}})
        return await super().change(course_id, marker, quantity, until, capacity)


WIRING: dict[str, tuple[str, type]] = {
    "effects-outside-transaction": ("PostgresUnitOfWork", EffectsOutsideTransaction),
    "commit-after-response": ("PostgresUnitOfWork", CommitAfterResponse),
    "relay-without-streams": ("OutboxRepository", RelayWithoutStreams),
    "del-instead-of-fence": ("CacheRepository", DelInsteadOfFence),
    "saga-step-not-idempotent": ("SeatRepository", StepRepeated),
    "erasure-once": ("ConversationRepository", ErasureOnce),
}
VARIANTS = (*WIRING, "w1")


def break_wiring(variant: str) -> None:
    """Let `dependencies.wire` build the broken class in place of the right one."""
    if variant in WIRING:
        setattr(dependencies, *WIRING[variant])


def break_stores(variant: str, stores: Stores) -> None:
    if variant == "w1":
        database = stores.mongodb.database
        stores.mongodb.database = database.with_options(write_concern=WriteConcern(w=1, j=False))


def break_app(variant: str, app: FastAPI) -> None:
    if variant == "commit-after-response":
        app.add_middleware(AfterResponse)
