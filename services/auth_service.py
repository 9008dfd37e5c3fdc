"""Sign-in with opaque tokens: the session is PostgreSQL's, Redis keeps a short-lived copy."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from pydantic import SecretStr
from structlog.contextvars import bind_contextvars

from database.unit_of_work import UnitOfWork
from models.activity import happened
from models.session import SignedIn
from repositories.cache_repo import ENDED, CacheRepository
from repositories.session_repo import Credentials, Revoked, SessionRepository
from services.effects import InvalidateSession, RecordActivity
from services.rate_limit_service import NOBODYS, RateLimitService, Turn
from tristore.bounds.turnstile import Turnstile
from tristore.cache.invalidation import Invalidation
from tristore.errors import InvalidInput, NotAuthenticated, NotFound, SignInAgain
from tristore.forms import PasswordChange, SignIn, Token
from tristore.models import new_id
from tristore.outbox.relay import Outbox
from tristore.passwords import PasswordHasher
from tristore.tokens import TOKEN, hash_of, new_token

WRONG = "Username or password is wrong."
PATIENCE = 5.0
"""Seconds that a sign-in may wait for its turn."""
RECENT = timedelta(minutes=5)


class AuthService:
    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        sessions: SessionRepository,
        cache: CacheRepository,
        outbox: Outbox,
        invalidation: Invalidation,
        hasher: PasswordHasher,
        limits: RateLimitService,
        lasts: timedelta,
        most: int,
    ) -> None:
        """`most`: sessions of a user."""
        self._unit_of_work = unit_of_work
        self._sessions = sessions
        self._cache = cache
        self._outbox = outbox
        self._invalidation = invalidation
        self._hasher = hasher
        self._limits = limits
        self._lasts = lasts
        self._most = most
        # As many as keep the hashing threads busy: the others would only hold connections, and come back all at once.
        self._turnstile = Turnstile(2 * hasher.threads, PATIENCE)
        self.counts: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Sign-ins that wait for their turn."""
        return self._turnstile.waiting

    async def sign_in(self, form: SignIn, address: str, client: str = "") -> Token:
        """A new session, of this client. An unknown user and a wrong password cost the same and say the same. Raises
        NotAuthenticated, TooManyRequests, StoreUnavailable."""
        found = await self._sessions.credentials(form.username)
        if found:
            bind_contextvars(user=str(found.user_id))
        account = str(found.user_id) if found else form.username  # a name and an e-mail address of one account are one
        async with self._turnstile.turn(*await self._limits.guess(address, account)):
            token = await self._sign_in(form, client)
        await self._limits.remember(address, account)
        return token

    async def _sign_in(self, form: SignIn, client: str) -> Token:
        # Where the hash was not the verified one any more, another sign-in may have renewed it: look again.
        token = await self._begin_session(form, client) or await self._begin_session(form, client)
        if token is None:
            raise NotAuthenticated(WRONG)
        return token

    async def _begin_session(self, form: SignIn, client: str) -> Token | None:
        """None when the password's hash was replaced after it was verified."""
        credentials = await self._sessions.credentials(form.username)
        better_hash = await self._verify(form.password, credentials)
        assert credentials
        if credentials.is_disabled:  # told only to whoever knows the password
            raise NotAuthenticated("This account is disabled.")
        token, id_ = new_token(), new_id()
        token_hash = hash_of(token)
        lease = await self._cache.sessions.lease(token_hash)  # before the commit
        async with self._unit_of_work() as uow:
            if not await self._sessions.lock_credentials(uow.session, credentials):
                return None
            new = {"id": id_, "user_id": credentials.user_id, "token_hash": token_hash, "lasts": self._lasts}
            await self._sessions.add(uow.session, {**new, "device": form.device, "client": client})
            if better_hash:
                await self._sessions.set_password_hash(uow.session, credentials, better_hash)
            oldest = await self._sessions.revoke_oldest(uow.session, credentials.user_id, self._most)
            uow.effects += revocations(oldest)
            uow.effects.append(RecordActivity(activity=happened(credentials.user_id, "signed_in")))
            await uow.commit()
        bind_contextvars(session=str(id_), ended_sessions=[str(session.id) for session in oldest])
        await self._outbox.deliver(uow.owed)
        who = SignedIn(session_id=id_, user_id=credentials.user_id)
        await self._cache.sessions.fill(lease, token_hash, who)
        self.counts["signed_in"] += 1
        return Token(access_token=token, expires_in=int(self._lasts.total_seconds()))

    async def authenticate(self, token: str) -> SignedIn:
        """Whose token it is: from Redis for at most the copy's lifetime, else from PostgreSQL. Raises NotAuthenticated,
        StoreUnavailable when neither can answer."""
        if not TOKEN.fullmatch(token):
            raise NotAuthenticated
        token_hash = hash_of(token)
        found: SignedIn | None = None

        async def load() -> SignedIn | None:
            nonlocal found
            found = await self._sessions.find(token_hash)
            return found

        copy = await self._cache.sessions.get(token_hash, load)
        if copy is None:
            raise NotAuthenticated("The token is not valid, or no longer. Sign in again.")
        return found or SignedIn.model_validate_json(copy)

    async def is_password(self, user_id: uuid.UUID, password: SecretStr, turn: Turn = NOBODYS) -> bool:
        """Whether it is the user's. It costs what a sign-in costs, whatever the answer. `turn`: which it takes.
        Raises StoreUnavailable."""
        async with self._turnstile.turn(*turn):
            credentials = await self._sessions.credentials_of(user_id)
            is_right, _ = await self._hasher.verify(password, credentials.password_hash if credentials else None)
        self.counts["wrong"] += not is_right
        return is_right

    async def sessions(self, who: SignedIn) -> bytes:
        """The user's living sessions, newest first, as the JSON of a `SessionList`. Raises StoreUnavailable."""
        return b'{"items":%b}' % await self._sessions.list(who.user_id, who.session_id)

    async def require_recent(self, who: SignedIn) -> None:
        """Raises SignInAgain when nobody has shown the password in this session lately."""
        if not await self._sessions.is_recent(who.session_id, RECENT):
            raise SignInAgain

    async def confirm(self, who: SignedIn, password: SecretStr, turn: Turn) -> None:
        """As good as a sign-in for what asks for a recent one. Raises InvalidInput, StoreUnavailable."""
        if not await self.is_password(who.user_id, password, turn):
            raise InvalidInput("password", "is not right")
        async with self._unit_of_work() as uow:
            await self._sessions.confirm(uow.session, who.session_id)
            await uow.commit()

    async def end_sessions(
        self, user_id: uuid.UUID, *, only: uuid.UUID | None = None, keep: uuid.UUID | None = None
    ) -> None:
        """End one session, or all but one, or all, and return when no process takes them any more. Asked again, tell
        all processes again: of what the first call committed nobody may have heard. Raises NotFound when there is no
        such session, StoreUnavailable."""
        async with self._unit_of_work() as uow:
            with suppress(NotFound):  # what an erasure has ended is ended again
                await uow.for_user(user_id, alone=True)
            ended = await self._sessions.revoke(uow.session, user_id, only=only, keep=keep)
            uow.effects += revocations(ended)
            await uow.commit()
        await self._invalidation.deliver(uow.owed)
        if only and not ended:
            raise NotFound

    async def change_password(self, who: SignedIn, change: PasswordChange) -> None:
        """Set a new password and end the user's other sessions; asked again, end them again. Raises InvalidInput,
        NotAuthenticated when this session was ended meanwhile, StoreUnavailable."""
        # Where the hash was not the verified one any more, the same request may have got there first, and an erasure
        # after it: look again.
        for _ in range(3):
            if await self._set_password(who, change):
                return
        raise InvalidInput("current_password", "was changed meanwhile")

    async def _set_password(self, who: SignedIn, change: PasswordChange) -> bool:
        """False when the hash was replaced after it was verified."""
        credentials = await self._sessions.credentials_of(who.user_id)
        if credentials is None:
            raise NotAuthenticated
        await self._hasher.refuse_weak(change.new_password, "new_password", credentials.own_names)
        password_hash = await self._new_hash(change, credentials)
        async with self._unit_of_work() as uow:
            if not await self._sessions.lock_credentials(uow.session, credentials):
                return False
            if not await self._sessions.is_living(uow.session, who.session_id):
                raise NotAuthenticated
            if password_hash:
                await self._sessions.set_password_hash(uow.session, credentials, password_hash)
                uow.effects.append(RecordActivity(activity=happened(who.user_id, "password_changed")))
            uow.effects += revocations(await self._sessions.revoke(uow.session, who.user_id, keep=who.session_id))
            await uow.commit()
        await self._invalidation.deliver(uow.owed)
        return True

    async def _new_hash(self, change: PasswordChange, credentials: Credentials) -> str | None:
        """None when the new password holds already. Raises InvalidInput."""
        try:
            await self._verify(change.current_password, credentials)
        except NotAuthenticated:
            holds_already, _ = await self._hasher.verify(change.new_password, credentials.password_hash)
            if not holds_already:
                raise InvalidInput("current_password", "is not right") from None
            return None
        return await self._hasher.hash(change.new_password)

    async def _verify(self, password: SecretStr, credentials: Credentials | None) -> str | None:
        """Returns a new hash where the old one has outdated parameters. Raises NotAuthenticated."""
        is_right, better_hash = await self._hasher.verify(password, credentials.password_hash if credentials else None)
        if not is_right:
            self.counts["wrong"] += 1
            raise NotAuthenticated(WRONG)
        return better_hash


def revocations(revoked: Iterable[Revoked]) -> list[InvalidateSession]:
    """What Redis is owed when sessions end."""
    return [
        InvalidateSession(session_id=session.id, token_hash=session.token_hash.hex(), version=ENDED)
        for session in revoked
    ]
