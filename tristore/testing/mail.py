"""A real SMTP server for tests: what it was sent, and how it refuses."""

import asyncio
import email
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tristore.testing.lab import until


class LetterBox:
    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.context = context
        self.logins: list[tuple[str, str]] = []
        self.over_tls = False
        """Whether the newest mail came after STARTTLS."""
        self.dsn = f"smtp://127.0.0.1:{port}?starttls=never"
        self.mails: list[EmailMessage] = []
        self.refuse: Callable[[str], str | None] = lambda recipient: None
        """What a recipient is answered instead of 250."""
        self.answer: Callable[[], str | None] = lambda: None
        """What a mail is answered instead of 250; it is kept all the same."""
        self.hang = asyncio.Event()
        """A mail is answered once this is set."""
        self.hang.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.BaseTransport] = set()

    @property
    def is_open(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            for transport in list(self._open):
                transport.close()
            await self._server.wait_closed()
            self._server = None

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Nobody answers at its port."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def clear(self) -> None:
        self.mails.clear()

    def mails_to(self, address: str, subject: str | None = None) -> list[EmailMessage]:
        """In the order in which they first came. One that came again, under the same id, is one: the newest."""
        wanted = address.lower()
        found = [mail for mail in self.mails if str(mail["To"]).lower() == wanted]
        by_id = {mail["Message-ID"]: mail for mail in found if subject in {None, mail["Subject"]}}
        return list(by_id.values())

    async def to(self, address: str, subject: str | None = None, number: int = 0) -> EmailMessage:
        """The mail of this number to an address. Waits for it; raises TimeoutError."""

        async def has_come() -> bool:
            return len(self.mails_to(address, subject)) > number

        await until(has_come, 20)
        return self.mails_to(address, subject)[number]

    @staticmethod
    def text(mail: EmailMessage) -> str:
        """The part that is plain text."""
        part = mail.get_body(("plain",))
        assert part
        return str(part.get_content())

    # What aiosmtpd asks

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.refuse(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content
        assert content
        self.mails.append(email.message_from_bytes(content, policy=default))
        self.over_tls = session.ssl is not None
        await self.hang.wait()
        return self.answer() or "250 OK"


class _Connection(SMTP):
    def __init__(self, box: LetterBox) -> None:
        self._box = box
        super().__init__(
            box,
            hostname="letter-box.test",
            enable_SMTPUTF8=True,
            tls_context=box.context,
            authenticator=self._take_login,
            auth_require_tls=False,
        )

    def _take_login(self, *told: object) -> AuthResult:
        login = told[-1]
        assert isinstance(login, LoginPassword)
        self._box.logins.append((login.login.decode(), login.password.decode()))
        return AuthResult(success=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._box._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport:
            self._box._open.discard(self.transport)
        super().connection_lost(error)


@asynccontextmanager
async def letter_box(context: ssl.SSLContext | None = None) -> AsyncIterator[LetterBox]:
    """With a context it offers STARTTLS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    box = LetterBox(port, context)
    await box.start()
    try:
        yield box
    finally:
        await box.stop()
