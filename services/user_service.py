"""Registration, profiles and their changes, over all three stores."""

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from structlog.contextvars import bind_contextvars

from database.unit_of_work import UnitOfWork
from models.activity import Activity, happened
from models.conversation import started
from models.session import SignedIn
from models.user import Caller, FullProfile, ProfileUpdate, PublicProfile, Registered, Registration, Role
from repositories.cache_repo import CacheRepository
from repositories.user_repo import UserRepository
from services.auth_service import AuthService
from services.effects import CreateConversation, InvalidateProfile, RecordActivity
from services.rate_limit_service import NOBODYS, Turn
from tristore.cache.invalidation import Invalidation
from tristore.errors import Conflict, NotAuthenticated, NotFound, found
from tristore.idempotency import IdempotencyKey, IdempotencyRepository, KeyUsed
from tristore.models import new_id
from tristore.outbox.effects import Owed
from tristore.outbox.relay import Outbox
from tristore.passwords import PasswordHasher
from tristore.tags import Tags

WELCOME_TITLE = "Welcome to ChatLingo"
Attempt = Callable[[str], Awaitable[Turn]]


class LastAdmin(Conflict):
    """This is the last admin: make somebody else an admin first."""


class UserService:
    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        users: UserRepository,
        idempotency: IdempotencyRepository,
        cache: CacheRepository,
        outbox: Outbox,
        invalidation: Invalidation,
        hasher: PasswordHasher,
        auth: AuthService,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._users = users
        self._idempotency = idempotency
        self._cache = cache
        self._outbox = outbox
        self._invalidation = invalidation
        self._hasher = hasher
        self._auth = auth

    async def register_user(
        self, registration: Registration, key: IdempotencyKey | None = None, attempt: Attempt | None = None
    ) -> Registered:
        """Create the user in PostgreSQL, then what follows from it elsewhere; with the same key again, the same answer,
        if the password is still right. `attempt` counts that as a sign-in to the account, and says which turn it takes.
        Raises AlreadyTaken, InProgress, InvalidInput, StoreUnavailable, and what `attempt` raises."""
        own_names = (registration.username, registration.email)
        await self._hasher.refuse_weak(registration.password, "password", own_names)
        password_hash = await self._hasher.hash(registration.password)
        user_id = new_id()
        welcome = started(user_id, WELCOME_TITLE)
        lease = await self._cache.profiles.lease(user_id)  # before the commit
        registered = Registered(user_id=user_id, welcome_conversation_id=welcome.id)
        # The address's own, so that strangers who make up the same key do not meet. Hashed as in limits: it is stored.
        key = key and key.of(hashlib.sha256(registration.email.encode()).hexdigest())
        async with self._unit_of_work() as uow:
            replay = await self._idempotency.find(uow.session, key)
            if replay is None:
                profile = await self._users.add(uow.session, user_id, password_hash, registration)
                await self._idempotency.keep(uow.session, key, registration, registered, user_id)
                uow.effects += [
                    CreateConversation(conversation=welcome),
                    RecordActivity(activity=happened(user_id, "registered")),
                ]
                await uow.commit()
        if replay is not None:  # verified whatever else is sent: nothing tells more of the password than a sign-in does
            bind_contextvars(user=str(replay.user_id))
            turn = await attempt(str(replay.user_id)) if attempt else NOBODYS
            if not await self._auth.is_password(replay.user_id, registration.password, turn):
                raise KeyUsed
            return Registered.model_validate(replay.answer_to(registration))
        bind_contextvars(user=str(user_id))
        await self._outbox.deliver(uow.owed)
        await self._cache.profiles.fill(lease, user_id, profile)
        return registered

    async def get_user_profile(self, user_id: uuid.UUID) -> bytes:
        """The full profile as the bytes of its JSON: from Redis, else from PostgreSQL. Raises NotFound,
        StoreUnavailable when neither can answer."""
        return found(await self._cache.profiles.get(user_id, partial(self._users.get, user_id)))

    async def own_profile(self, who: SignedIn) -> bytes:
        """The caller's, as bytes of its JSON. Raises NotAuthenticated when there is no such user any more,
        StoreUnavailable."""
        try:
            return who.profile or await self.get_user_profile(who.user_id)
        except NotFound:
            raise NotAuthenticated from None

    async def view_user(self, user_id: uuid.UUID, viewer: Caller) -> FullProfile | PublicProfile:
        """All of it for the user and for admins, the public part for others. Raises NotFound, StoreUnavailable."""
        body = await self.get_user_profile(user_id)
        mine = viewer.id == user_id or viewer.role == "admin"
        return (FullProfile if mine else PublicProfile).model_validate_json(body)

    async def update_user(self, user_id: uuid.UUID, update: ProfileUpdate, tags: Tags = None) -> FullProfile:
        """Change what was sent. Raises AlreadyTaken, NotFound, StaleTag, StoreUnavailable."""
        profile, owed = await self._change(user_id, update.sent(), [happened(user_id, "profile_changed")], tags)
        await self._outbox.deliver(owed)
        return profile

    async def set_role(self, user_id: uuid.UUID, role: Role, admin: uuid.UUID | None) -> FullProfile:
        """By an admin, or by an operator if it is None. Holds in every process when it returns. Raises LastAdmin,
        NotFound, StoreUnavailable."""
        bind_contextvars(user=str(user_id), role=role)
        changed = happened(user_id, "role_changed", admin)
        changes = [changed] if admin is None else [changed, happened(admin, "changed_role", user_id)]
        profile, owed = await self._change(user_id, {"role": role}, changes, heard=True)
        await self._invalidation.deliver(owed)
        return profile

    async def _change(
        self,
        user_id: uuid.UUID,
        changes: dict[str, object],
        activities: Sequence[Activity],
        tags: Tags = None,
        *,
        heard: bool = False,
    ) -> tuple[FullProfile, Sequence[Owed]]:
        async with self._unit_of_work() as uow:
            for activity in activities:
                if activity.user_id != user_id:
                    await uow.for_user(activity.user_id)
            if changes.get("role", "admin") != "admin" and await self._users.lock_admins(uow.session) == [user_id]:
                raise LastAdmin
            profile = found(await self._users.update(uow.session, user_id, changes, tags))
            uow.effects += [
                InvalidateProfile(user_id=user_id, version=profile.version, heard=heard),
                *(RecordActivity(activity=activity) for activity in activities),
            ]
            await uow.commit()
        return profile, uow.owed
