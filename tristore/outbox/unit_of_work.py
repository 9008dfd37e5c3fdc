"""The PostgreSQL transaction of one use case, and what it owes to the other stores."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from tristore.outbox.effects import Effect, Owed
from tristore.stores.postgres import Postgres, connect

Record = Callable[[AsyncSession, Sequence[Effect]], Awaitable[Sequence[Owed]]]


class PostgresUnitOfWork:
    """One transaction: `await uow.commit()` is the last line of its block, and leaving without it rolls back.

    Redis and MongoDB are not in it, because they cannot roll back. What is owed to them goes to `effects`.
    Raises StoreUnavailable when PostgreSQL does not answer within the request's budget.
    """

    session: AsyncSession

    def __init__(self, postgres: Postgres, record: Record) -> None:
        self._postgres = postgres
        self._record = record
        self._exits = AsyncExitStack()
        self.effects: list[Effect] = []
        self.owed: Sequence[Owed] = ()
        """The effects as recorded by `commit`, for the outbox to deliver."""

    async def __aenter__(self) -> Self:
        connection = await self._exits.enter_async_context(connect(self._postgres.engine))
        self.session = await self._exits.enter_async_context(AsyncSession(connection, expire_on_commit=False))
        return self

    async def commit(self) -> None:
        """Make it true, with what it owes. Only services call this."""
        await self.record()
        await self.session.commit()

    async def record(self) -> None:
        """Write what is owed so far: only for who must lock other streams after those of these effects."""
        if self.effects:
            self.owed = [*self.owed, *await self._record(self.session, self.effects)]
            self.effects = []

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._exits.__aexit__(kind, error, trace)
