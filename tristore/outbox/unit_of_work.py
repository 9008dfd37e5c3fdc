"""The PostgreSQL transaction of one use case, and what it owes to other stores."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tristore import spans
from tristore.outbox.effects import Effect, Owed
from tristore.stores.hosts import Connection
from tristore.stores.postgres import Postgres, connect

RecordEffects = Callable[[AsyncSession, Sequence[Effect]], Awaitable[Sequence[Owed]]]


class PostgresUnitOfWork:
    """One transaction. `await uow.commit()` is the last line of its block; without it everything is rolled back.

    Other stores are not in it, because they cannot roll back. What is owed to them goes to `effects`.
    Raises StoreUnavailable when PostgreSQL does not answer within the request's budget, and RuntimeError when the block
    ends with effects and without a commit.
    """

    session: AsyncSession

    def __init__(self, postgres: Postgres, record: RecordEffects) -> None:
        self._postgres = postgres
        self._record = record
        self._exits = AsyncExitStack()
        self._uncommitted: list[Effect] = []
        """Recorded, but not committed yet."""
        self.effects: list[Effect] = []
        self.owed: Sequence[Owed] = ()
        """The effects as `commit` recorded them, for the outbox to deliver."""
        self.writers: set[UUID] = set()
        """Whose rows it changes: after the commit they, and the caller, must find that. See `read_anywhere`."""

    async def __aenter__(self) -> Self:
        connection = await self._exits.enter_async_context(connect(self._postgres.engine))
        self.session = await self._exits.enter_async_context(AsyncSession(connection, expire_on_commit=False))
        return self

    async def commit(self) -> None:
        """Make the changes true, together with what they owe. Only services call this."""
        await self.record()
        if self._postgres.lineage.asks_at_commit:
            raw = await (await self.session.connection()).get_raw_connection()
            await self._postgres.lineage.confirm(cast(Connection, raw.driver_connection))
        if replica := self._postgres.replica:
            await replica.pin(self.writers)
        with spans.call("postgresql", "COMMIT"):
            await self.session.commit()
        self._uncommitted = []

    async def record(self) -> None:
        """Write what is owed so far. Only for a transaction that must lock other streams after those of its effects."""
        if self.effects:
            self.owed = [*self.owed, *await self._record(self.session, self.effects)]
            self._uncommitted += self.effects
            self.effects = []

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.__aexit__(kind, error, trace)
        lost = [type(effect).__name__ for effect in (*self._uncommitted, *self.effects)]
        if lost and error is None:
            raise RuntimeError(
                f"The unit of work ended without a commit, so {', '.join(lost)} will not be applied. "
                "End the block with `await uow.commit()`, or add to `uow.effects` only what you commit."
            )
