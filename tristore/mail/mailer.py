"""Sends letters: finds the words, makes a message of them, and hands it to a transport."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from functools import partial
from urllib.parse import urlsplit

from tristore.errors import StoreUnavailable
from tristore.identity import for_transport
from tristore.mail.effects import Letter
from tristore.mail.templates import Templates
from tristore.mail.transports import Transport

AT_ONCE = 8
"""Connections to the mail server. Most allow ten or twenty of one client."""
REMEMBERED_SECONDS = 60.0
"""For so long it is known how a mail ended that nobody waited for. By then it has been asked for again."""


class Mailer:
    def __init__(self, transport: Transport, templates: Templates, *, sender: str, public_url: str) -> None:
        """`sender`: an address, perhaps with a name. `public_url`: where links lead, without a slash at the end. Never
        what a request says of its host: whoever asks could let the link of somebody else lead to himself."""
        name, address = parseaddr(sender)
        self._address = address
        self._from = Address(name, addr_spec=address)
        self._public_url = public_url
        self._templates = templates
        self._transport = transport
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._sending: dict[uuid.UUID, asyncio.Task[None]] = {}
        self.counts: Counter[str] = Counter()
        self.ping = transport.ping

    async def send(self, mail_id: uuid.UUID, write: Callable[[], Awaitable[Letter | None]]) -> None:
        """Send what `write` gives, if it gives anything. Whoever has to stop waiting leaves it going: a mail that is
        under way cannot be taken back. Asked for the same mail again, wait for that one. Raises what the transport and
        `write` raise."""
        task = self._sending.get(mail_id)
        if task is None:
            task = self._sending[mail_id] = asyncio.create_task(self._send(mail_id, write))
            task.add_done_callback(partial(self._remember, mail_id))
        await asyncio.wait([task])
        self._forget(mail_id, task)
        task.result()

    async def close(self) -> None:
        """Stop waiting for the mail server. What is not sent stays owed."""
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    def _remember(self, mail_id: uuid.UUID, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # looked at: nobody may be waiting any more
        task.get_loop().call_later(REMEMBERED_SECONDS, self._forget, mail_id, task)

    def _forget(self, mail_id: uuid.UUID, task: asyncio.Task[None]) -> None:
        if self._sending.get(mail_id) is task:
            del self._sending[mail_id]

    async def _send(self, mail_id: uuid.UUID, write: Callable[[], Awaitable[Letter | None]]) -> None:
        async with self._slots:
            if (letter := await write()) is None:
                self.counts["nobody"] += 1
                return
            recipient = for_transport(letter.to)
            try:
                await self._transport.send(self._message(mail_id, letter, recipient), self._address, recipient)
            except StoreUnavailable:
                self.counts["unavailable"] += 1
                raise
            except Exception:
                self.counts["refused"] += 1
                raise
            self.counts["sent"] += 1

    def _message(self, mail_id: uuid.UUID, letter: Letter, recipient: str) -> EmailMessage:
        values = {**letter.values, "link": f"{self._public_url}{letter.link}" if letter.link else None}
        heading, _, text = self._render(letter, "txt", values).partition("\n")
        message = EmailMessage()
        message["From"] = self._from
        message["To"] = Address(addr_spec=recipient)
        message["Subject"] = heading.removeprefix("Subject: ")
        message["Date"] = formatdate()
        message["Message-ID"] = f"<{mail_id}@{urlsplit(self._public_url).hostname}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
        message.set_content(text.lstrip("\n"))
        message.add_alternative(self._render(letter, "html", values), subtype="html")
        return message

    def _render(self, letter: Letter, kind: str, values: dict[str, str | None]) -> str:
        return self._templates.render(letter.template, letter.language, kind, **values)
