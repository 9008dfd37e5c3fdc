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
from models.user import Caller, FullProfile, ProfileUpdate, PublicProfile, Registered, Registration, Role, UserPage
from repositories.cache_repo import CacheRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import AuthService, revocations
from services.effects import CreateConversation, InvalidateProfile, RecordActivity
from services.rate_limit_service import NOBODYS, Turn
from tristore.cache.invalidation import Invalidation
from tristore.errors import Conflict, NotAuthenticated, NotFound, found
from tristore.idempotency import IdempotencyKey, IdempotencyRepository, KeyUsed
from tristore.links import LinkRepository, MayMail, SendLink
from tristore.models import new_id, now
from tristore.outbox.effects import Owed
from tristore.outbox.relay import Outbox
from tristore.passwords import PasswordHasher
from tristore.recovery import Take
from tristore.tags import Tags

WELCOME_TITLE = "Welcome to ChatLingo"
Attempt = Callable[[str], Awaitable[Turn]]
Changes = dict[str, object]


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
        sessions: SessionRepository,
        links: LinkRepository,
        may_mail: MayMail | None,
        is_private: bool,
    ) -> None:
        """`may_mail`: None where no mail is sent. `is_private`: no registration tells whose an address is."""
        self._unit_of_work = unit_of_work
        self._users = users
        self._idempotency = idempotency
        self._cache = cache
        self._outbox = outbox
        self._invalidation = invalidation
        self._hasher = hasher
        self._auth = auth
        self._sessions = sessions
        self._links = links
        self._may_mail = may_mail
        self._is_private = is_private

    async def register_user(
        self, registration: Registration, key: IdempotencyKey | None = None, attempt: Attempt | None = None
    ) -> Registered:
        """Create the user in PostgreSQL, then what follows from it elsewhere; with the same key again, the same answer,
        if the password is still right. `attempt` counts that as a sign-in to the account, and says which turn it takes.
        Raises AlreadyTaken, InProgress, InvalidInput, StoreUnavailable, and what `attempt` raises."""
        await self._hasher.refuse_weak(registration.password, "password", (registration.username, registration.email))
        password_hash = await self._hasher.hash(registration.password)
        user_id = new_id()
        welcome = started(user_id, WELCOME_TITLE)
        lease = await self._cache.profiles.lease(user_id)  # before the commit
        email = None if self._is_private else registration.email  # until it is proved, and whoever has it by now
        is_mailed = self._may_mail is not None and await self._may_mail(registration.email)
        registered = Registered(user_id=user_id, welcome_conversation_id=welcome.id)
        # The address's own, so that strangers who make up the same key do not meet. Hashed as in limits: it is stored.
        key = key and key.of(hashlib.sha256(registration.email.encode()).hexdigest())
        async with self._unit_of_work() as uow:
            replay = await self._idempotency.find(uow.session, key)
            if replay is None:
                profile = await self._users.add(uow.session, user_id, password_hash, registration, email)
                if email is None:
                    await self._links.ask(uow.session, user_id, "verify", registration.email)
                await self._idempotency.keep(uow.session, key, registration, registered, user_id)
                uow.effects += [
                    CreateConversation(conversation=welcome),
                    RecordActivity(activity=happened(user_id, "registered")),
                    *[SendLink.to_verify(user_id, registration.email)] * is_mailed,
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
        """Change what was sent. Where there is mail, a new address holds once it is verified, and the present one is
        told. Raises AlreadyTaken, NotFound, StaleTag, StoreUnavailable."""
        changes, activities, address, mails = update.sent(), [happened(user_id, "profile_changed")], "", []
        if self._may_mail and (address := str(changes.pop("email", ""))):
            present = FullProfile.model_validate_json(await self.get_user_profile(user_id)).email
            mails = await SendLink.of_change(user_id, present, address, self._may_mail)
        changes |= {"email_verified_at": None} if "email" in changes else {}
        profile, owed = await self._change(user_id, changes, activities, tags, address=address, mails=mails)
        await self._outbox.deliver(owed)
        return profile

    async def set_role(self, user_id: uuid.UUID, role: Role, admin: uuid.UUID | None) -> FullProfile:
        """By an admin, or by an operator if it is None. Holds in every process when it returns. Raises LastAdmin,
        NotFound, StoreUnavailable."""
        bind_contextvars(role=role)
        return await self._decree(user_id, {"role": role}, admin, "role_changed", "changed_role")

    async def set_disabled(self, user_id: uuid.UUID, disabled: bool, admin: uuid.UUID) -> FullProfile:
        """Who is disabled has no session, and gets none. Raises LastAdmin, NotFound, StoreUnavailable."""
        words = ("disabled", "disabled_user") if disabled else ("enabled", "enabled_user")
        return await self._decree(user_id, {"disabled_at": now() if disabled else None}, admin, *words, out=disabled)

    async def end_sessions(self, user_id: uuid.UUID, admin: uuid.UUID) -> None:
        """All of them. Raises NotFound, StoreUnavailable."""
        await self._decree(user_id, {}, admin, "sessions_ended", "ended_sessions", out=True)

    async def page(self, limit: int, cursor: uuid.UUID | None, search: str) -> UserPage:
        """Newest first. The cursor is the id of the last one seen. Raises StoreUnavailable."""
        return UserPage(**vars(await self._users.page(limit, cursor, search)))

    async def prove(self, owner: uuid.UUID, take: Take, password_hash: str | None = None) -> None:
        """See tristore.recovery.Prove. Raises AlreadyTaken, InvalidInput, NotFound, StoreUnavailable."""
        out = password_hash is not None
        changes: Changes = {"password_hash": password_hash} if out else {}
        told = [happened(owner, "password_reset" if out else "email_verified")]
        _, owed = await self._change(owner, changes, told, heard=out, out=out, take=take)
        await self._invalidation.deliver(owed)

    async def _decree(
        self, user_id: uuid.UUID, changes: Changes, admin: uuid.UUID | None, *acts: str, out: bool = False
    ) -> FullProfile:
        """What an admin does to a user is told of both. `out`: the user's sessions end."""
        bind_contextvars(user=str(user_id))
        told = [happened(user_id, acts[0], admin), *([happened(admin, acts[1], user_id)] if admin else [])]
        profile, owed = await self._change(user_id, changes, told, heard=True, out=out)
        await self._invalidation.deliver(owed)
        return profile

    async def _change(
        self,
        user_id: uuid.UUID,
        changes: Changes,
        activities: Sequence[Activity],
        tags: Tags = None,
        *,
        heard: bool = False,
        out: bool = False,
        address: str = "",
        mails: Sequence[SendLink] = (),
        take: Take | None = None,
    ) -> tuple[FullProfile, Sequence[Owed]]:
        async with self._unit_of_work() as uow:
            for activity in activities:
                if activity.user_id != user_id:
                    await uow.for_user(activity.user_id)
            if take:
                await uow.for_user(user_id, alone=True)
                changes |= {"email": await take(uow.session), "email_verified_at": now()}
            is_less = changes.get("role", "admin") != "admin" or changes.get("disabled_at")
            if is_less and await self._users.lock_admins(uow.session) == [user_id]:
                raise LastAdmin
            profile = found(await self._users.update(uow.session, user_id, changes, tags))
            uow.effects += [
                InvalidateProfile(user_id=user_id, version=profile.version, heard=heard),
                *(RecordActivity(activity=activity) for activity in activities),
            ]
            if out:
                uow.effects += revocations(await self._sessions.revoke(uow.session, user_id))
            if address:
                await self._links.ask(uow.session, user_id, "verify", address)
                await self._links.ask(uow.session, user_id, "notice", profile.email)
                uow.effects += mails
            await uow.commit()
        return profile, uow.owed
