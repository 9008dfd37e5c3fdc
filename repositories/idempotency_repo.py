"""Idempotency keys in PostgreSQL, in the transaction of the request that they belong to."""

import uuid
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.idempotency import IdempotencyKey, IdempotencyRecord, fingerprint
from tristore.errors import InProgress, InvalidInput

KEPT = timedelta(hours=24)
FORGOTTEN_AT_ONCE = 100


class IdempotencyRepository:
    """Never commits. Without a key, nothing is replayed or kept."""

    async def replay(
        self, session: AsyncSession, key: IdempotencyKey | None, body: BaseModel
    ) -> dict[str, object] | None:
        """The answer that this key already got, or None: then the key is this transaction's until it ends. Raises
        InProgress while another transaction has it, InvalidInput when it was sent with another body."""
        if key is None:
            return None
        name = func.hashtextextended(f"{key.scope} {key.key}", 0)
        if not await session.scalar(select(func.pg_try_advisory_xact_lock(name))):
            raise InProgress
        query = select(IdempotencyRecord.fingerprint, IdempotencyRecord.answer).where(
            IdempotencyRecord.scope == key.scope,
            IdempotencyRecord.key == key.key,
            IdempotencyRecord.created_at > func.now() - KEPT,
        )
        row = (await session.execute(query)).one_or_none()
        if row is None:
            return None
        if row.fingerprint != fingerprint(body):
            raise InvalidInput("Idempotency-Key", "was already used for another request")
        answer: dict[str, object] = row.answer
        return answer

    async def erase(self, session: AsyncSession, user_id: uuid.UUID) -> None:
        """All keys of a user: a fast hash of name and email tells who it was."""
        await session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.user_id == user_id))

    async def keep(
        self, session: AsyncSession, key: IdempotencyKey | None, body: BaseModel, answer: BaseModel, user_id: uuid.UUID
    ) -> None:
        """Remember the answer for a day, and forget some that are older."""
        if key is None:
            return
        columns = tuple_(IdempotencyRecord.scope, IdempotencyRecord.key)
        some = (
            select(IdempotencyRecord.scope, IdempotencyRecord.key)
            .where(IdempotencyRecord.created_at < func.now() - KEPT)
            .limit(FORGOTTEN_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        await session.execute(delete(IdempotencyRecord).where(columns.in_(some)))
        values = {"user_id": user_id, "fingerprint": fingerprint(body), "answer": answer.model_dump(mode="json")}
        record = insert(IdempotencyRecord).values(scope=key.scope, key=key.key, **values)
        again = record.on_conflict_do_update(  # one that is past its day, and not forgotten yet
            index_elements=[IdempotencyRecord.scope, IdempotencyRecord.key],
            set_={**values, "created_at": func.now()},
        )
        await session.execute(again)
