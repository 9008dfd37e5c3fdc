"""Idempotency keys: what a client sends so that a repeated request is not a second one. They stand in PostgreSQL, and
are written in the transaction of the request that they belong to."""

import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel
from sqlalchemy import LargeBinary, String, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from tristore.errors import InProgress, InvalidInput
from tristore.models import Table

KEPT = timedelta(hours=24)
FORGOTTEN_AT_ONCE = 100
# The IETF's draft has a string in quotes, where a backslash stands before a quote and before itself. Most clients send
# the bare word. Printable ASCII, and the same key either way.
LONGEST = 255
PATTERN = r"""^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~][ -~]{0,254})$"""


class KeyTable(Table):
    """The answers to requests that succeeded. The product names the table, and what the user's id refers to."""

    __abstract__ = True

    scope: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(LONGEST), primary_key=True)
    user_id: Mapped[uuid.UUID | None]
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    answer: Mapped[dict[str, object]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KeyUsed(InvalidInput):
    """The key was sent with another request."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key", "was already used for another request")


@dataclass(frozen=True)
class IdempotencyKey:
    """A key that a client sent. It belongs to a route and to somebody: the scope."""

    scope: str
    key: str
    replayed: Callable[[], None] = lambda: None
    """Called when the answer is that to an earlier request."""

    def of(self, owner: object) -> Self:
        """The key of this owner. The same key of another owner is another key."""
        return replace(self, scope=f"{owner} {self.scope}")


def unquoted(field: str) -> str:
    """The key in the header's field. Raises InvalidInput."""
    if not re.fullmatch(PATTERN, field):
        raise InvalidInput("Idempotency-Key", f"must be 1 to {LONGEST} printable ASCII characters, in quotes or bare")
    return re.sub(r"\\(.)", r"\1", field[1:-1]) if field.startswith('"') else field


def fingerprint(body: BaseModel) -> bytes:
    """Tells one body from another. Secrets count as equal: pydantic masks them, and a fast hash of one must not be
    stored."""
    return hashlib.sha256(body.model_dump_json().encode()).digest()


@dataclass(frozen=True)
class Replay:
    """An answer that a key has got already."""

    key: IdempotencyKey
    user_id: uuid.UUID
    """Whose it is."""
    fingerprint: bytes
    answer: dict[str, object]

    def answer_to(self, body: BaseModel) -> dict[str, object]:
        """Raises KeyUsed when it was the answer to another body."""
        if self.fingerprint != fingerprint(body):
            raise KeyUsed
        self.key.replayed()
        return self.answer


class IdempotencyRepository:
    """Never commits. Without a key, nothing is replayed or kept."""

    def __init__(self, table: type[KeyTable]) -> None:
        self._table = table

    async def replay(
        self, session: AsyncSession, key: IdempotencyKey | None, body: BaseModel
    ) -> dict[str, object] | None:
        """The answer that this key already got, or None: then the key is this transaction's until it ends. Raises
        InProgress while another transaction has it, KeyUsed when it was sent with another body."""
        kept = await self.find(session, key)
        return kept.answer_to(body) if kept else None

    async def find(self, session: AsyncSession, key: IdempotencyKey | None) -> Replay | None:
        """As `replay`, for who has more to look at than the body. Raises InProgress."""
        if key is None:
            return None
        name = func.hashtextextended(f"{key.scope} {key.key}", 0)
        if not await session.scalar(select(func.pg_try_advisory_xact_lock(name))):
            raise InProgress
        table = self._table
        mine = (table.scope == key.scope, table.key == key.key, table.created_at > func.now() - KEPT)
        found = await session.execute(select(table.user_id, table.fingerprint, table.answer).where(*mine))
        row = found.one_or_none()
        return Replay(key, **row._mapping) if row else None

    async def keep(
        self, session: AsyncSession, key: IdempotencyKey | None, body: BaseModel, answer: BaseModel, user_id: uuid.UUID
    ) -> None:
        """Remember the answer for a day, and forget some that are older."""
        if key is None:
            return
        name = (self._table.scope, self._table.key)
        old = select(*name).where(self._table.created_at < func.now() - KEPT).limit(FORGOTTEN_AT_ONCE)
        await session.execute(delete(self._table).where(tuple_(*name).in_(old.with_for_update(skip_locked=True))))
        values = {"user_id": user_id, "fingerprint": fingerprint(body), "answer": answer.model_dump(mode="json")}
        record = insert(self._table).values(scope=key.scope, key=key.key, **values)
        again = record.on_conflict_do_update(  # one that is past its day, and not forgotten yet
            index_elements=name, set_={**values, "created_at": func.now()}
        )
        await session.execute(again)

    async def erase(self, session: AsyncSession, user_id: uuid.UUID) -> None:
        """All keys of a user: a fast hash of name and email tells who it was."""
        await session.execute(delete(self._table).where(self._table.user_id == user_id))
