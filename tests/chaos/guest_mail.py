"""Mail in the lab: a mail server that comes and goes, and what must have come to it."""

import asyncio
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from email.message import EmailMessage
from typing import ClassVar

from config import Settings
from tests.chaos.checks import of
from tests.chaos.client import Client, Habits
from tests.chaos.guests import Guest, Operation
from tests.chaos.learner import Learner
from tests.chaos.memory import Violation
from tests.chaos.schedule import Plan
from tests.chaos.snapshot import Snapshot
from tristore.errors import StoreUnavailable
from tristore.mail.effects import Letter
from tristore.mail.mailer import Mailer
from tristore.models import new_id
from tristore.testing.lab import free_port
from tristore.testing.mail import LetterBox

PORT = free_port()
AWAY = (0.1, 1.5)
TAKES_AND_LEAVES = 0.1
"""The share of mails that the server has when the connection is lost: nobody is told, and it must come again."""
VERIFY, RESET = "Confirm your address for ChatLingo", "A new password for ChatLingo"
FEW = Plan([("reset", "mongodb")], (3.0, 5.0))
"""What the variants do wrong needs no fault but the mail server's own."""


class ForgetsMail(Mailer):
    """Takes a mail for sent whose server is away."""

    async def send(self, mail_id: uuid.UUID, write: Callable[[], Awaitable[Letter | None]]) -> None:
        with suppress(StoreUnavailable):
            await super().send(mail_id, write)


class RenamesMail(Mailer):
    """Gives a mail another id each time it is sent, as whoever leaves that to the library does."""

    def _message(self, mail_id: uuid.UUID, letter: Letter, recipient: str) -> EmailMessage:
        return super()._message(new_id(), letter, recipient)


class Sender:
    def __init__(self, client: Client, box: LetterBox, asked: Counter[str], acknowledged: Counter[str]) -> None:
        self._client, self._box = client, box
        self._asked, self._acknowledged = asked, acknowledged

    async def forget_password(self, learner: Learner) -> bool:
        self._asked[learner.name] += 1
        body = {"email": learner.account["email"]}
        answer = await self._client.ask(learner, "POST", "/auth/password-reset", body=body)
        if done := self._client.is_done(learner, answer, "a mail for a new password"):
            self._acknowledged[learner.name] += 1
        return done

    async def interrupt_mail(self, learner: Learner) -> bool:
        """Connections are lost, and for a while there are none."""
        if not self._box.is_open:
            return await self._client.write(learner)
        async with self._box.closed():
            await asyncio.sleep(self._client.chance.uniform(*AWAY))
        return True


class Mail(Guest):
    variants: ClassVar = {"mail-forgotten": {"Mailer": ForgetsMail}, "mail-renamed": {"Mailer": RenamesMail}}
    plans: ClassVar = dict.fromkeys(variants, FEW)
    settings: ClassVar = {"MAIL_DSN": f"smtp://127.0.0.1:{PORT}?starttls=never"}

    def __init__(self) -> None:
        self._box = LetterBox(PORT)
        chance = random.Random(PORT)
        self._box.answer = lambda: "421 4.3.2 on its way out" if chance.random() < TAKES_AND_LEAVES else None
        self._asked, self._acknowledged = Counter[str](), Counter[str]()
        self._came: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        """By address and subject: how often each id came."""

    def habits(self) -> Mapping[str, Habits]:
        return dict.fromkeys(self.variants, Habits(erasing=0, more={"forget_password": 10, "interrupt_mail": 5}))

    async def arrive(self) -> None:
        await self._box.start()

    async def leave(self) -> None:
        await self._box.stop()

    def operations(self, client: Client) -> list[tuple[Operation, int]]:
        sender = Sender(client, self._box, self._asked, self._acknowledged)
        return [(sender.forget_password, 2), (sender.interrupt_mail, 1)]

    async def look(self, settings: Settings) -> None:
        """All at once: a list that each learner's check went through would take longer with each."""
        for mail in self._box.mails:
            self._came[str(mail["To"]).lower(), str(mail["Subject"])][str(mail["Message-ID"])] += 1
        self._box.clear()

    def of_learner(self, learner: Learner, stores: Snapshot) -> Iterator[Violation]:
        if learner.state != "living":  # who is erased is mailed nothing more
            return
        most = {VERIFY: 1, RESET: self._asked[learner.name]}
        for subject, least in ((VERIFY, 1), (RESET, self._acknowledged[learner.name])):
            came = self._came[learner.account["email"], subject]
            if not least <= len(came) <= most[subject]:
                what = f"{len(came)} mails '{subject}' came to {learner.name}, and not {least} to {most[subject]}"
                yield of(learner, f"{what}: {dict(came)}", "/users/register", "/auth/password-reset")


GUEST = Mail
