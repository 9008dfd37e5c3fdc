"""The PostgreSQL transaction of one use case, and its lock on a user."""

import uuid

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession as Transaction

from models.user import User
from tristore.errors import NotFound
from tristore.outbox.unit_of_work import PostgresUnitOfWork

__all__ = ["Transaction", "UnitOfWork"]


class UnitOfWork(PostgresUnitOfWork):
    async def for_user(self, user_id: uuid.UUID, *, alone: bool = False) -> None:
        """Let nobody erase the user until the transaction ends; `alone`: nor begin or end sessions of the user. Raises
        NotFound for an unknown or erased user, StoreUnavailable.

        Call it first in every transaction that inserts a row for a user or owes an effect for one. Without it the
        insert waits for an erasure that is under way, then succeeds, and leaves behind what the erasure should have
        found."""
        query = select(User.id).where(User.id == user_id, User.erased_at.is_(None))
        if await self.session.scalar(query.with_for_update(read=not alone, key_share=True)) is None:
            raise NotFound("There is no such user.")
        self.writers.add(user_id)
