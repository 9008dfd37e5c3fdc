"""Users and profiles in PostgreSQL."""

import uuid

from sqlalchemy import Executable, String, bindparam, delete, func, insert, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncSession

from database.postgres import HotQuery, Postgres, connect
from models.user import TAG, FullProfile, Profile, Registration, User
from tristore.identity import folded
from tristore.links import Recipient
from tristore.models import Page, cursor_page
from tristore.stores.postgres_errors import naming_what_is_taken
from tristore.tags import Tags, tag_of_version, update_tagged

UNIQUE_FIELDS = {"uq_users_username_lower": "username", "uq_users_email_lower": "email"}
COLUMN_NAMES = {"language": "language_preference", "level": "cefr_level"}
ADDRESS = func.coalesce(User.email, "")
USER = (
    User.id,
    User.username,
    ADDRESS.label("email"),
    User.email_verified_at.is_not(None).label("email_verified"),
    User.role,
    User.disabled_at.is_not(None).label("disabled"),
    User.version,
    User.language_preference.label("language"),
    User.cefr_level.label("level"),
    User.created_at,
    User.updated_at,
)
NAME = func.lower(User.username)
PROFILE = (Profile.display_name, Profile.bio)
TAG_OF_ROW = tag_of_version(User.version, TAG)
GET = HotQuery(
    select(*USER, *PROFILE)
    .join(Profile, Profile.user_id == User.id)
    .where(User.id == bindparam("user_id"), User.erased_at.is_(None))
)

# Both rows in one round trip, built once: `values(...)` for each registration takes longer than its execution.
_USER_COLUMNS = ("id", "username", "email", "password_hash", "language_preference", "cefr_level")
_added = insert(User).values({name: bindparam(name) for name in _USER_COLUMNS}).returning(*USER).cte("added")
_with_profile = (
    insert(Profile)
    .from_select(["user_id", "display_name"], select(_added.c.id, _added.c.username))
    .returning(Profile.user_id, *PROFILE)
    .cte("with_profile")
)
ADD = select(_added, *(_with_profile.c[column.name] for column in PROFILE)).join(
    _with_profile, _with_profile.c.user_id == _added.c.id
)


class UserRepository:
    """Never commits: what writes takes the session of a unit of work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def get(self, user_id: uuid.UUID) -> FullProfile | None:
        """The profile as committed on the primary, or None."""
        row = await GET.row(self._postgres, user_id=user_id)
        return FullProfile.model_validate(dict(row)) if row else None

    async def page(self, limit: int, cursor: uuid.UUID | None, search: str) -> Page[FullProfile]:
        """Newest first: all, or those whose name or address begins so."""
        query = select(*USER, *PROFILE).join(Profile, Profile.user_id == User.id).where(User.erased_at.is_(None))
        if search:
            begins = (column.startswith(folded(search), autoescape=True) for column in (NAME, User.email))
            query = query.where(or_(*begins))
        if cursor:
            query = query.where(User.id < cursor)
        async with connect(self._postgres.reads) as connection:
            rows = (await connection.execute(query.order_by(User.id.desc()).limit(limit + 1))).all()
        return cursor_page([FullProfile(**row._mapping) for row in rows], limit)

    async def recipient(self, user_id: uuid.UUID) -> Recipient | None:
        """Of mail. Nobody erases the user while the statement runs."""
        profile = await self.get(user_id)
        may = (User.id == user_id, User.erased_at.is_(None), User.disabled_at.is_(None))
        who = select(User.id, type_coerce(ADDRESS, String)).where(*may).with_for_update(read=True, key_share=True)
        return Recipient(who, profile.language) if profile else None

    async def add(
        self, session: AsyncSession, user_id: uuid.UUID, password_hash: str, new: Registration, email: str | None
    ) -> FullProfile:
        """Insert the user with a profile. Raises AlreadyTaken naming the field."""
        user = {**new.model_dump(exclude={"password"}), "id": user_id, "password_hash": password_hash, "email": email}
        with naming_what_is_taken(UNIQUE_FIELDS):
            row = (await session.execute(ADD, user)).one()
        return FullProfile(**row._mapping)

    async def update(
        self, session: AsyncSession, user_id: uuid.UUID, changes: dict[str, object], tags: Tags
    ) -> FullProfile | None:
        """Apply changes, named as in FullProfile, and grow the version; None for an unknown user. Raises AlreadyTaken
        naming the field, StaleTag."""
        of_profile = {name: changes[name] for name in changes if name in {"display_name", "bio"}}
        of_user = {COLUMN_NAMES.get(name, name): changes[name] for name in changes if name not in of_profile}
        query = update(User).where(User.id == user_id, User.erased_at.is_(None)).returning(*USER)
        query = query.values(version=User.version + 1, updated_at=func.now(), **of_user)
        with naming_what_is_taken(UNIQUE_FIELDS):
            row = await update_tagged(session, query, TAG_OF_ROW, tags)
        if row is None:
            return None
        profile: Executable = select(*PROFILE).where(Profile.user_id == user_id)
        if of_profile:
            profile = update(Profile).where(Profile.user_id == user_id).values(**of_profile).returning(*PROFILE)
        return FullProfile(**row._mapping, **(await session.execute(profile)).one()._mapping)

    async def lock_admins(self, session: AsyncSession) -> list[uuid.UUID]:
        """All of them, who stay admins until the end of the transaction. In one order: transactions that lock them meet
        at the first, and each sees what the one before has left."""
        living = (User.role == "admin", User.disabled_at.is_(None))
        admins = select(User.id).where(*living).order_by(User.id).with_for_update(key_share=True)
        return list(await session.scalars(admins))

    async def erase(self, session: AsyncSession, user_id: uuid.UUID) -> int | None:
        """Leave nothing of the row but the id and the time. Returns the new version, None for an unknown user."""
        # The update alone takes a lock that does not wait for whoever holds the user.
        await session.execute(select(User.id).where(User.id == user_id).with_for_update())
        gone = dict.fromkeys(("username", "email", "password_hash", "email_verified_at", "disabled_at"))
        defaults = {"role": "learner", "language_preference": "en", "cefr_level": "A1", "updated_at": func.now()}
        times = {"version": User.version + 1, "erased_at": func.coalesce(User.erased_at, func.now())}
        query = update(User).where(User.id == user_id).values(**gone, **defaults, **times).returning(User.version)
        return await session.scalar(query)

    async def erase_profile(self, session: AsyncSession, user_id: uuid.UUID) -> None:
        await session.execute(delete(Profile).where(Profile.user_id == user_id))
