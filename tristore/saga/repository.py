"""Sagas in PostgreSQL. Time is PostgreSQL's."""

import uuid
from datetime import datetime

from sqlalchemy import ColumnElement, Float, case, cast, extract, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tristore import spans
from tristore.outbox.tables import OutboxStream
from tristore.saga.tables import Direction, Progress, SagaRow, State, Unfinished
from tristore.stores.postgres import Postgres, connect, translate_errors

OPEN: tuple[Direction, ...] = ("running", "compensating")
SECONDS_LEFT: ColumnElement[float] = cast(extract("epoch", SagaRow.deadline - func.clock_timestamp()), Float)
PROGRESS = (
    SagaRow.id,
    SagaRow.name,
    SagaRow.state,
    SagaRow.step,
    SagaRow.deadline,
    SECONDS_LEFT.label("seconds_left"),
    SagaRow.reason,
    SagaRow.traceparent,
)


class SagaRepository:
    """Never commits: what writes takes the session of a unit of work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def add(self, session: AsyncSession, saga_id: uuid.UUID, name: str, seconds: float) -> None:
        begun = {"id": saga_id, "name": name, "deadline": _in(seconds), "traceparent": spans.traceparent()}
        await session.execute(insert(SagaRow).values(begun))

    async def get(self, saga_id: uuid.UUID, session: AsyncSession | None = None) -> Progress | None:
        query = select(*PROGRESS).where(SagaRow.id == saga_id)
        if session:
            row = (await session.execute(query)).one_or_none()
        else:
            async with connect(self._postgres.reads) as connection:
                row = (await connection.execute(query)).one_or_none()
        return Progress(**row._mapping) if row else None

    async def move(
        self,
        session: AsyncSession,
        saga: Progress,
        state: State,
        step: int,
        *,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Move a saga on from where it was read. `reason`: why it is turned round. `seconds`: until its new deadline.
        False when somebody else has moved it meanwhile."""
        as_read = (SagaRow.state == saga.state, SagaRow.step == saga.step, SagaRow.deadline == saga.deadline)
        values: dict[str, object] = {"state": state, "step": step, "updated_at": func.now()}
        if reason is not None:
            values["reason"] = reason
        if seconds is not None:
            values["deadline"] = _in(seconds)
        query = update(SagaRow).where(SagaRow.id == saga.id, *as_read).values(values).returning(SagaRow.id)
        return await session.scalar(query) is not None

    async def unfinished(self, saga_id: uuid.UUID | None = None, limit: int = 100) -> list[Unfinished]:
        """All sagas that are not at an end, the oldest first; or one, in any state."""
        suffix = case((SagaRow.state == "compensating", ":undo"), else_="")
        continues = OutboxStream.aggregate == func.concat("saga:", SagaRow.id, suffix)
        stream = (OutboxStream.attempts, OutboxStream.last_error, OutboxStream.dead, OutboxStream.due_at)
        query = (
            select(*PROGRESS, SagaRow.created_at, *stream)
            .outerjoin(OutboxStream, continues & (OutboxStream.pending > 0))
            .where(SagaRow.id == saga_id if saga_id else SagaRow.state.in_(OPEN))
            .order_by(SagaRow.created_at)
            .limit(limit)
        )
        async with connect(self._postgres.reads) as connection:
            return [Unfinished(**row._mapping) for row in await connection.execute(query)]

    async def oldest_seconds(self) -> float:
        """The age of the oldest saga that is not at its end, 0 where there is none. Uses the connection of the health
        probe."""
        age = extract("epoch", func.clock_timestamp() - func.min(SagaRow.created_at))
        query = select(func.coalesce(cast(age, Float), 0.0)).where(SagaRow.state.in_(OPEN))
        with translate_errors():
            async with self._postgres.probe_engine.connect() as connection:
                return float((await connection.execute(query)).scalar_one())


def _in(seconds: float) -> ColumnElement[datetime]:
    # To the millisecond, which is what MongoDB keeps: both must mean the same moment.
    return func.date_trunc("milliseconds", func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
