"""Where mail goes: to an SMTP server, or, on a developer's machine, into a folder."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from pathlib import Path
from typing import Protocol

import aiosmtplib
from aiosmtplib import SMTP
from anyio import to_thread

from tristore.errors import StoreUnavailable
from tristore.mail.effects import MAIL, Deferred
from tristore.outbox.effects import Hopeless
from tristore.stores.dsn import Dsn

PORTS = {"smtp": 587, "smtps": 465}
CONNECT_SECONDS, SEND_SECONDS = 3.0, 30.0
"""For each command. RFC 5321 (4.5.3.2) lets a server think for minutes about what it was sent; most answer at once."""
NOT_NOW = 421
"""RFC 5321 (3.8): the server is shutting down, or has too many connections."""


class Transport(Protocol):
    async def send(self, message: EmailMessage, sender: str, recipient: str) -> None:
        """Raises Hopeless when the mail is refused for good, Deferred when it is refused for now, StoreUnavailable when
        the server is at fault."""

    async def ping(self) -> None:
        """Raises StoreUnavailable when no mail is taken."""


class SmtpServer:
    """Each mail has a connection of its own. A password, or a mail, never goes in the clear to another machine."""

    def __init__(self, dsn: Dsn, own_name: str) -> None:
        """`own_name`: the host that we say we are."""
        host, _, port = dsn.hosts.rpartition(":") if not dsn.hosts.endswith("]") else (dsn.hosts, "", "")
        self._host = (host or dsn.hosts).strip("[]")
        self._port = int(port) if host else PORTS[dsn.scheme]
        self._is_tls = dsn.scheme == "smtps"
        self._start_tls = not self._is_tls and dsn.options.get("starttls") != "never"
        self._user, self._password = dsn.user or None, dsn.password or None
        self._own_name = own_name

    async def send(self, message: EmailMessage, sender: str, recipient: str) -> None:
        async with self._connected() as server:
            with _whose_fault():
                await server.send_message(message, sender=sender, recipients=[recipient], timeout=SEND_SECONDS)

    async def ping(self) -> None:
        """Whether the server greets. The rest of the way takes longer than a probe may."""
        server = SMTP(hostname=self._host, port=self._port, use_tls=self._is_tls, start_tls=False)
        with _server_at_fault():
            try:
                await server.connect(timeout=CONNECT_SECONDS)
            finally:
                server.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SMTP]:
        server = SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            use_tls=self._is_tls,
            start_tls=self._start_tls,
            local_hostname=self._own_name,
            timeout=CONNECT_SECONDS,
        )
        try:
            with _server_at_fault():
                await server.connect()
            yield server
            with suppress(aiosmtplib.SMTPException, OSError):  # the mail is sent
                await server.quit(timeout=CONNECT_SECONDS)
        finally:
            server.close()


class MailFolder:
    """Keeps each mail as a file, under its id: a repetition replaces it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage, sender: str, recipient: str) -> None:
        await to_thread.run_sync(self._write, message)

    async def ping(self) -> None:
        """A folder always serves."""

    def _write(self, message: EmailMessage) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = str(message["Message-ID"]).strip("<>").partition("@")[0]
        (self._folder / f"{name}.eml").write_bytes(message.as_bytes(policy=POLICY))


@contextmanager
def _server_at_fault() -> Iterator[None]:
    """While it is spoken to before a mail is: whatever it says is not for the mail's sake."""
    try:
        yield
    except aiosmtplib.SMTPAuthenticationError as error:
        raise StoreUnavailable(MAIL, "not permitted", str(error.code)) from None
    except (aiosmtplib.SMTPTimeoutError, TimeoutError) as error:
        raise StoreUnavailable(MAIL, "timeout", type(error).__name__) from None
    except aiosmtplib.SMTPResponseException as error:
        raise StoreUnavailable(MAIL, "refuses writes", str(error.code)) from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise StoreUnavailable(MAIL, "unreachable", type(error).__name__) from None


@contextmanager
def _whose_fault() -> Iterator[None]:
    """What the server says to one mail. Its words may repeat an address: only its code is kept."""
    with _server_at_fault():
        try:
            yield
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refusal(error.recipients[0].code) from None
        except (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as error:
            raise _refusal(error.code) from None
        except aiosmtplib.SMTPNotSupported:  # an address in letters that the server does not know (RFC 6531)
            raise Hopeless("not supported") from None


def _refusal(code: int) -> Exception:
    if code == NOT_NOW:
        return StoreUnavailable(MAIL, "busy", str(code))
    if code < 400:  # no answer of RFC 5321
        return StoreUnavailable(MAIL, "refuses writes", str(code))
    return Hopeless(str(code)) if code >= 500 else Deferred(str(code))
