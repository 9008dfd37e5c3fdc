"""Broken variants: what a transaction owes is recorded, handed out, or blamed in a wrong way."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from database.unit_of_work import UnitOfWork
from services.effects import InvalidateSession, Targets
from tristore.errors import StoreUnavailable
from tristore.outbox.effects import Effect, Owed, Stream
from tristore.outbox.pauses import Ping
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import Leased, OutboxRepository, Outcome, Stopped


class EffectsOutsideTransaction(UnitOfWork):
    """Commits, and then records what it owes."""

    async def commit(self) -> None:
        await self.session.commit()
        if self.effects:
            await self.record()
            await self.session.commit()
        self._uncommitted = []


_after_response: ContextVar[list[Callable[[], Awaitable[None]]] | None] = ContextVar("after_response", default=None)


class CommitAfterResponse(UnitOfWork):
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
        await self.record()
        self._uncommitted = []
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
        try:
            await self._app(scope, receive, send)
        finally:  # also for who got an error: a transaction that stays open would hold its connection for good
            for finish in waiting:
                await finish()


class RelayWithoutStreams(OutboxRepository):
    """Hands out effects, not streams: one at a time to whoever comes, several of an aggregate at once."""

    async def lease(self, queue: str, streams: int, effects: int) -> dict[Stream, list[Leased]]:
        due = text(
            "SELECT e.id, e.aggregate, e.name, CAST(e.payload AS text) FROM outbox e"
            " JOIN outbox_streams s USING (aggregate, store)"
            " WHERE e.store = :store AND s.due_at <= clock_timestamp() ORDER BY random() LIMIT :limit"
        )
        rows = await self._execute(due, {"store": queue, "limit": streams})
        return {Stream(row.aggregate, queue, uuid.uuid4()): [Leased(row.id, row.name, row.payload)] for row in rows}

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Stopped]:
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


SUPERSEDE_AS_IT_WAS = text("""
WITH streams AS MATERIALIZED (
  SELECT aggregate, store FROM outbox_streams WHERE aggregate = :aggregate ORDER BY store FOR UPDATE
), emptied AS (
  UPDATE outbox_streams s SET pending = 0, attempts = 0, dead = false, lease_token = NULL, lease_until = NULL,
    last_error = NULL FROM streams WHERE s.aggregate = streams.aggregate AND s.store = streams.store
)
DELETE FROM outbox e USING streams WHERE e.aggregate = streams.aggregate AND e.store = streams.store
""")


class SupersedesInOneStatement(OutboxRepository):
    """Its snapshot is from before it waited for the streams' rows: what was committed meanwhile stays, uncounted."""

    async def supersede(self, session: AsyncSession, aggregate: str) -> None:
        await session.execute(SUPERSEDE_AS_IT_WAS, {"aggregate": aggregate})


class DeliversNoRevocation(Outbox):
    """Leaves it to the relays, and says that it is done: so nobody waits."""

    async def deliver(self, owed: Sequence[Owed], *more: Any, **named: Any) -> set[str]:
        others = [item for item in owed if not isinstance(item.effect, InvalidateSession)]
        return await super().deliver(others, *more, **named)


class NeverPauses(Outbox):
    """Takes every store for well, so it asks one that is down for each effect."""

    def __init__(self, *, pings: Mapping[str, Ping], **more: Any) -> None:
        async def well() -> None: ...

        super().__init__(pings=dict.fromkeys(pings, well), **more)


class Failed(Exception):
    """What an outage becomes where it is taken for a fault of the effect."""


def count_outages() -> None:
    """Let every effect fail by its own fault when its store is not available."""
    for effect in Effect.by_name.values():
        if "apply" in vars(effect):
            setattr(effect, "apply", _blamed(effect.apply))  # noqa: B010 - mypy knows it as a method


def _blamed(apply: Callable[[Any, Targets], Awaitable[None]]) -> Callable[[Any, Targets], Awaitable[None]]:
    @wraps(apply)
    async def apply_or_fail(self: Any, to: Targets) -> None:
        try:
            await apply(self, to)
        except StoreUnavailable as unavailable:
            raise Failed from unavailable

    return apply_or_fail
