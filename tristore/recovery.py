"""What somebody proves by opening a link in a mail: that an address is theirs, and with it an account."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bind_contextvars

from tristore.links import LinkRepository, MayMail, Recipient, SendLink
from tristore.models import new_id
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.passwords import PasswordHasher

Take = Callable[[AsyncSession], Awaitable[str]]
"""Uses a link up in a transaction that has locked its owner, and returns the address that it was sent to."""


class Account(Protocol):
    @property
    def user_id(self) -> uuid.UUID: ...
    @property
    def own_names(self) -> Sequence[str]:
        """A password must not be made of them."""


class Accounts(Protocol):
    async def credentials(self, name: str) -> Account | None:
        """Of the account with this address."""

    async def credentials_of(self, user_id: uuid.UUID) -> Account | None: ...


class Prove(Protocol):
    async def __call__(self, owner: uuid.UUID, take: Take, password_hash: str | None = None) -> None:
        """Let the address hold that a link was sent to. With a new password, set it and end all sessions."""


class Recovery:
    """Every method raises StoreUnavailable, and tells the security log whose account it is about. What takes a token
    raises InvalidInput when it opens nothing."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], PostgresUnitOfWork],
        accounts: Accounts,
        links: LinkRepository,
        recipient: Callable[[uuid.UUID], Awaitable[Recipient | None]],
        hasher: PasswordHasher,
        prove: Prove,
        has_mail: bool,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._accounts = accounts
        self._links = links
        self._recipient = recipient
        self._hasher = hasher
        self._prove = prove
        self._has_mail = has_mail

    async def ask_reset(self, address: str) -> None:
        """The same is done, and owed, whether anybody has the address or not: nothing tells."""
        account = await self._accounts.credentials(address)
        if account:
            bind_contextvars(user=str(account.user_id))
        await self._owe(SendLink(owner_id=account.user_id if account else new_id(), purpose="reset"))

    async def ask_verification(self, owner: uuid.UUID, may_mail: MayMail) -> None:
        """Send the link once more that verifies the owner's address. `may_mail` counts a mail to it."""
        to = await self._recipient(owner)
        address = to and await self._links.address(to.who, "verify")
        if address and await may_mail(address):
            await self._owe(SendLink.to_verify(owner, address))

    async def reset(self, token: SecretStr, new_password: SecretStr) -> None:
        """Set a new password and end all sessions. It proves the address too, and closes what a squatter may have
        begun: a change to another one. Raises InvalidInput for a weak password as well."""
        owner = await self._owner("reset", token)
        account = await self._accounts.credentials_of(owner)
        await self._hasher.refuse_weak(new_password, "new_password", account.own_names if account else ())
        password_hash = await self._hasher.hash(new_password)
        await self._prove(owner, lambda session: self._links.take(session, "reset", token), password_hash)

    async def verify(self, token: SecretStr) -> None:
        """Let the address hold that the link was sent to. Raises AlreadyTaken when it is somebody else's by now."""
        owner = await self._owner("verify", token)
        await self._prove(owner, lambda session: self._links.take(session, "verify", token))

    async def _owner(self, purpose: str, token: SecretStr) -> uuid.UUID:
        owner = await self._links.owner(purpose, token)
        bind_contextvars(user=str(owner))
        return owner

    async def _owe(self, mail: SendLink) -> None:
        if self._has_mail:
            async with self._unit_of_work() as uow:
                uow.effects.append(mail)
                await uow.commit()
