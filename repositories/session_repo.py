"""Sign-in sessions in PostgreSQL. Time is PostgreSQL's."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Integer,
    Interval,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from database.postgres import HotQuery, Postgres, connect
from models.session import Session, SignedIn
from models.user import FullProfile, Profile, User
from repositories.user_repo import PROFILE, USER

TOUCH_EVERY = timedelta(minutes=1)

# Built once: what SQLAlchemy makes of a function and its operand refers to itself, and would be garbage to collect.
IS_NAMED = or_(func.lower(User.username) == bindparam("name"), User.email == bindparam("name"))
ADD = insert(Session).values(
    {name: bindparam(name) for name in ("id", "user_id", "token_hash", "device", "client")}
    | {"expires_at": func.clock_timestamp() + bindparam("lasts", type_=Interval)}
)
NEWEST = (
    select(Session.id)
    .where(Session.user_id == bindparam("owner"), Session.revoked_at.is_(None))
    .order_by(Session.created_at.desc(), Session.id.desc())
)
END_OLDEST = (
    update(Session)
    .where(Session.id.in_(NEWEST.offset(bindparam("keep", type_=Integer))))
    .values(revoked_at=func.now())
    .returning(Session.id, Session.token_hash)
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True)
class Credentials:
    user_id: uuid.UUID
    password_hash: str
    own_names: tuple[str, ...] = field(default=(), repr=False)
    """Of the user. A password must not be made of them."""
    is_disabled: bool = False


@dataclass(frozen=True)
class Revoked:
    id: uuid.UUID
    token_hash: bytes


class SessionRepository:
    """Commits only the use that `find` notes, and `forget`: all else that writes takes the session of a unit of work.
    Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres, idle: timedelta, copies_last: timedelta) -> None:
        """`copies_last`: for so long after its end a process that was not told may take a session for living."""
        self._postgres = postgres
        self._copies_last = copies_last
        self._over = or_(Session.expires_at < func.now(), Session.revoked_at < func.now() - copies_last)
        self._living = (
            Session.revoked_at.is_(None),
            Session.expires_at > func.now(),
            Session.last_seen_at > func.now() - idle,
        )
        is_it = (Session.token_hash == bindparam("token_hash"), *self._living)
        # Its use is noted by the statement that finds it. Whoever holds the row's lock is about to end it.
        unseen = select(Session.id).where(*is_it, Session.last_seen_at < func.now() - TOUCH_EVERY)
        noted = update(Session).where(Session.id.in_(unseen.with_for_update(skip_locked=True)))
        self._find = HotQuery(
            select(Session.id.label("session_id"), *USER, *PROFILE)
            .join(User, User.id == Session.user_id)
            .join(Profile, Profile.user_id == User.id)
            .where(*is_it, User.erased_at.is_(None))
            .add_cte(noted.values(last_seen_at=func.now()).cte("noted"))
        )
        # PostgreSQL writes the JSON: made here, forty lists of sixty held up everybody else for 40 to 70 ms.
        times = (_shown(column) for column in (Session.created_at, Session.last_seen_at, Session.expires_at))
        of_user = (Session.user_id == bindparam("user_id"), *self._living)
        described = (Session.device, Session.client)
        shown = select(Session.id, *times, *described, (Session.id == bindparam("current")).label("current")).where(
            *of_user
        )
        listed = func.json_agg(shown.order_by(Session.id.desc()).subquery("shown").table_valued())
        self._list = HotQuery(select(func.coalesce(cast(listed, Text), "[]").label("sessions")))

    async def credentials(self, name: str) -> Credentials | None:
        """Of the user with this name, as `account_name` makes it of what was sent."""
        return await self._credentials(IS_NAMED, name=name)

    async def credentials_of(self, user_id: uuid.UUID) -> Credentials | None:
        return await self._credentials(User.id == user_id)

    async def _credentials(self, condition: ColumnElement[bool], **values: str) -> Credentials | None:
        names = (User.username, User.email, Profile.display_name)
        is_disabled = User.disabled_at.is_not(None)
        query = select(User.id, User.password_hash, is_disabled, *names).join(Profile, Profile.user_id == User.id)
        query = query.where(condition, User.erased_at.is_(None))
        async with connect(self._postgres.reads) as connection:
            row = (await connection.execute(query, values)).one_or_none()
        return Credentials(row.id, str(row.password_hash), tuple(map(str, row[3:])), row[2]) if row else None

    async def find(self, token_hash: bytes) -> SignedIn | None:
        """The living session of a token, with the profile of its user: without Redis both are wanted at once. Notes
        once a minute that it is in use."""
        row = await self._find.row(self._postgres, token_hash=token_hash)
        if row is None:
            return None
        profile = FullProfile.model_validate(dict(row)).model_dump_json().encode()
        return SignedIn(session_id=row["session_id"], user_id=row["id"], profile=profile)

    async def list(self, user_id: uuid.UUID, current: uuid.UUID) -> bytes:
        """The living sessions, newest first, as the JSON of a list of `SessionInfo`."""
        row = await self._list.row(self._postgres, user_id=user_id, current=current)
        assert row
        return str(row["sessions"]).encode()

    async def add(self, session: AsyncSession, new: Mapping[str, object]) -> None:
        """Add a session, with what `ADD` names, and forget those of the user that are over, and have no copies."""
        await session.execute(delete(Session).where(Session.user_id == new["user_id"], self._over))
        await session.execute(ADD, new)

    async def revoke(
        self,
        session: AsyncSession,
        user_id: uuid.UUID,
        *,
        only: uuid.UUID | None = None,
        keep: uuid.UUID | None = None,
    ) -> Sequence[Revoked]:
        """End one session, or all but one, or all, with the user locked `alone` (UnitOfWork.for_user). Returns also
        those that ended so lately that copies may live: whoever ended them may not know, and may have told nobody."""
        lately = Session.revoked_at > func.now() - self._copies_last
        query = update(Session).where(Session.user_id == user_id, or_(Session.revoked_at.is_(None), lately))
        if only:
            query = query.where(Session.id == only)
        if keep:
            query = query.where(Session.id != keep)
        revoked = query.values(revoked_at=func.coalesce(Session.revoked_at, func.now())).returning(
            Session.id, Session.token_hash
        )
        return [Revoked(row.id, row.token_hash) for row in await session.execute(revoked)]

    async def revoke_oldest(self, session: AsyncSession, user_id: uuid.UUID, keep: int) -> Sequence[Revoked]:
        """End all but the newest, with the user's credentials locked."""
        rows = await session.execute(END_OLDEST, {"owner": user_id, "keep": keep})
        return [Revoked(row.id, row.token_hash) for row in rows]

    async def forget(self, user_id: uuid.UUID) -> None:
        """Delete all sessions of an erased user, at once."""
        async with connect(self._postgres.background) as connection:
            await connection.execute(delete(Session).where(Session.user_id == user_id))

    async def is_recent(self, session_id: uuid.UUID, recent: timedelta) -> bool:
        """Whether it began, or was confirmed, so short a time ago."""
        shown = func.greatest(Session.created_at, Session.confirmed_at)  # null counts for nothing
        query = select(Session.id).where(Session.id == session_id, shown > func.now() - recent)
        async with connect(self._postgres.reads) as connection:
            return await connection.scalar(query) is not None

    async def confirm(self, session: AsyncSession, session_id: uuid.UUID) -> None:
        await session.execute(update(Session).where(Session.id == session_id).values(confirmed_at=func.now()))

    async def is_living(self, session: AsyncSession, session_id: uuid.UUID) -> bool:
        query = select(Session.id).where(Session.id == session_id, *self._living)
        return await session.scalar(query) is not None

    async def lock_credentials(self, session: AsyncSession, credentials: Credentials) -> bool:
        """Let nobody else replace the password's hash until the transaction ends. False when it was replaced
        meanwhile: a session must not begin with a password that has just been changed."""
        same = (User.id == credentials.user_id, User.password_hash == credentials.password_hash)
        query = select(User.id).where(*same, User.erased_at.is_(None), User.disabled_at.is_(None))
        query = query.with_for_update(key_share=True)
        return await session.scalar(query) is not None

    async def set_password_hash(self, session: AsyncSession, credentials: Credentials, password_hash: str) -> bool:
        """False when the password was changed meanwhile."""
        changed = await session.execute(
            update(User)
            .where(User.id == credentials.user_id, User.password_hash == credentials.password_hash)
            .values(password_hash=password_hash)
            .returning(User.id)
        )
        return changed.one_or_none() is not None


def _shown(time: InstrumentedAttribute[datetime]) -> ColumnElement[str]:
    """As the API shows it, and without regard to the server's time zone."""
    return func.to_char(func.timezone("UTC", time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"').label(time.key)
