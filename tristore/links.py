"""Links that are mailed to somebody: whoever opens one shows that mail to its address is read there. They stand in
PostgreSQL, as hashes of their tokens."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy import ColumnElement, Index, LargeBinary, Select, String, and_, case, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from tristore.bounds.limits import hashed
from tristore.errors import InvalidInput
from tristore.fields import LONGEST_EMAIL
from tristore.mail.effects import Letter, SendMail
from tristore.mail.mailer import Mailer
from tristore.models import Moment, Page, Table
from tristore.stores.postgres import Postgres, connect
from tristore.tokens import hash_of, new_token

T = TypeVar("T")


Purpose = Literal["verify", "reset", "notice"]
"""To prove an address, to choose a new password, and to tell the address before of the next one."""
LASTS: Mapping[Purpose, timedelta] = {
    "verify": timedelta(days=1),
    "reset": timedelta(hours=1),
    "notice": timedelta(),
}
KEY = ("owner_id", "purpose")
MayMail = Callable[..., Awaitable[bool]]
"""Counts a mail to an address, and tells whether it may be sent: see tristore.bounds.limits."""
TAKEN = "taken"
"""The letter to whoever has the address that somebody else wants to verify."""
PAGES = {"verify": "/pages/verify-email", "reset": "/pages/reset-password"}


class LinkTable(Table):
    """One row for each owner and purpose. The product names the table, and what the owner's id refers to."""

    __abstract__ = True

    owner_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16), primary_key=True)
    address: Mapped[str] = mapped_column(String(LONGEST_EMAIL))
    """Where the link is sent to."""
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Of the mail before: it may come second, or have come although nobody was told so."""
    expires_at: Mapped[datetime | None]

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:
        name = cls.__tablename__
        return tuple(Index(f"ix_{name}_{column}", column) for column in ("token_hash", "previous_hash"))


class MailedLink(BaseModel):
    """What its owner is shown."""

    purpose: str
    address: str
    expires_at: Moment | None


@dataclass(frozen=True)
class Recipient:
    who: Select[uuid.UUID, str]
    """Finds id and address of an owner, and locks who it is. It finds nobody who may not be sent mail."""
    language: str


class LinkRepository:
    """Commits only what `mint` does: all else that writes takes the session of a unit of work. Raises
    StoreUnavailable."""

    def __init__(self, postgres: Postgres, table: type[LinkTable]) -> None:
        self._postgres = postgres
        self._table = table

    async def ask(self, session: AsyncSession, owner: uuid.UUID, purpose: str, address: str) -> None:
        """Let the next mail of this purpose go to this address. What was sent to another one counts no more."""
        anew = {"address": address, "token_hash": None, "previous_hash": None, "expires_at": None}
        row = insert(self._table).values(owner_id=owner, purpose=purpose, address=address)
        await session.execute(
            row.on_conflict_do_update(set_=anew, where=self._table.address != address, index_elements=KEY)
        )

    async def address(self, owner: Select[uuid.UUID, str], purpose: Purpose) -> str | None:
        """Where the next mail goes to that proves an address: the one that was asked for, or else the owner's. None
        where `owner` finds nobody."""
        who, table = owner.cte("who"), self._table
        asked = select(table.address).where(table.owner_id == who.c[0], table.purpose == purpose).scalar_subquery()
        async with connect(self._postgres.reads) as connection:
            found: str | None = await connection.scalar(select(func.coalesce(asked, who.c[1])))
        return found

    async def mint(self, owner: Select[uuid.UUID, str], purpose: Purpose, token: str) -> str | None:
        """Let a token open the link from now on, and the one before it as well. Returns the address: the one that was
        asked for, or else the owner's; None where `owner` finds nobody."""
        table = self._table
        expiry = func.now() + literal(LASTS[purpose])
        source = owner.add_columns(literal(purpose), literal(hash_of(token)), expiry)
        row = insert(table).from_select(["owner_id", "address", "purpose", "token_hash", "expires_at"], source)
        # A new password is a matter of the present address, whatever an earlier mail was sent to.
        address = row.excluded.address if purpose == "reset" else table.address
        still_opens = and_(table.expires_at > func.now(), table.address == address)
        previous = case((still_opens, table.token_hash))
        newer = {name: row.excluded[name] for name in ("token_hash", "expires_at")} | {"address": address}
        minted = row.on_conflict_do_update(set_=newer | {"previous_hash": previous}, index_elements=KEY)
        async with connect(self._postgres.background) as connection:
            sent_to: str | None = await connection.scalar(minted.returning(table.address))
        return sent_to

    async def owner(self, purpose: str, token: SecretStr) -> uuid.UUID:
        """Whose link a token opens. Raises InvalidInput."""
        async with connect(self._postgres.reads) as connection:
            found = await connection.scalar(select(self._table.owner_id).where(*self._opened_by(purpose, token)))
        return _opened(found)

    async def take(self, session: AsyncSession, purpose: str, token: SecretStr) -> str:
        """Use the link up, with its owner locked, and close the other one. Returns the address that it was sent to.
        Raises InvalidInput."""
        table = self._table
        gone = delete(table).where(*self._opened_by(purpose, token)).returning(table.owner_id, table.address)
        owner, address = _opened((await session.execute(gone)).one_or_none())
        await session.execute(delete(table).where(table.owner_id == owner, table.purpose.in_(PAGES)))
        return str(address)

    async def erase(self, session: AsyncSession, owner: uuid.UUID) -> None:
        await session.execute(delete(self._table).where(self._table.owner_id == owner))

    async def page(self, owner: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[MailedLink]:
        """All of the owner's: there are only as many as purposes."""
        table = self._table
        query = select(table.purpose, table.address, table.expires_at).where(table.owner_id == owner)
        async with connect(self._postgres.reads) as connection:
            rows = (await connection.execute(query.order_by(table.purpose))).all()
        return Page(items=[MailedLink(**row._mapping) for row in rows], next_cursor=None)

    def _opened_by(self, purpose: str, token: SecretStr) -> tuple[ColumnElement[bool], ...]:
        table, sent = self._table, hash_of(token.get_secret_value())
        is_it = or_(table.token_hash == sent, table.previous_hash == sent)
        return table.purpose == purpose, is_it, table.expires_at > func.now()


class Holder(Protocol):
    """An account that has an address."""

    @property
    def user_id(self) -> uuid.UUID: ...


class Holders(Protocol):
    async def credentials(self, name: str) -> Holder | None:
        """Of the account with this address."""


class Targets(Protocol):
    """What the effects write to, as far as this one does."""

    @property
    def sessions(self) -> Holders: ...
    @property
    def mailer(self) -> Mailer | None: ...
    @property
    def links(self) -> LinkRepository: ...
    @property
    def recipient(self) -> Callable[[uuid.UUID], Awaitable[Recipient | None]]: ...


class SendLink(SendMail):
    """It names the owner: of one who is gone by then nothing is left to find, and nothing is sent. Whose the address is
    that somebody wants to verify is looked up here, where no request waits: its answer and its time cannot tell. Where
    it is another one's, they are told, and get no link."""

    owner_id: uuid.UUID
    purpose: Purpose
    only_to: str = ""
    """A hash of the address that the mail was counted for. Somebody may have asked for another one since: what waits
    for the first must not all go there."""

    @classmethod
    def to_verify(cls, owner: uuid.UUID, address: str) -> Self:
        return cls(owner_id=owner, purpose="verify", only_to=hashed(str(owner), address))

    @classmethod
    async def of_change(cls, owner: uuid.UUID, present: str, new: str, may_mail: MayMail) -> list[Self]:
        """To the new address and to the present one, as far as they may be sent. What tells the present one has a most
        of its own: whoever takes an account over cannot use it up by other mails."""
        mails = [cls.to_verify(owner, new)] if await may_mail(new) else []
        if await may_mail(present, "notice"):
            mails.append(cls(owner_id=owner, purpose="notice"))
        return mails

    async def write(self, to: Targets) -> Letter | None:
        if (recipient := await to.recipient(self.owner_id)) is None:
            return None
        # Looked at first: a token that nobody is sent would put an earlier mail's out of use.
        if self.only_to and not self._may_go_to(await to.links.address(recipient.who, self.purpose)):
            return None
        token = new_token()
        address = await to.links.mint(recipient.who, self.purpose, token)
        if not address or not self._may_go_to(address):
            return None
        if self.purpose == "verify" and (holder := await self._other_holder(to, address)):
            language = (await to.recipient(holder) or recipient).language
            return Letter(address, TAKEN, language)
        page = PAGES.get(self.purpose)
        link = page and f"{page}?token={token}&language={recipient.language}"
        return Letter(address, self.purpose, recipient.language, link)

    def _may_go_to(self, address: str | None) -> bool:
        return not self.only_to or self.only_to == hashed(str(self.owner_id), address or "")

    async def _other_holder(self, to: Targets, address: str) -> uuid.UUID | None:
        holder = await to.sessions.credentials(address)
        return holder.user_id if holder and holder.user_id != self.owner_id else None


def _opened(found: T | None) -> T:
    if found is None:
        raise InvalidInput("token", "opens nothing any more: ask for another mail")
    return found
