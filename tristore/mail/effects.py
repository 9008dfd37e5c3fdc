"""Mail as a target of the outbox: what a transaction owes to somebody's letter box."""

import time
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from tristore.models import new_id
from tristore.outbox.effects import Effect, Hopeless, NotYet

MAIL = "mail"
"""The queue, and the name of the mail server among the stores."""
RELAY_ALONE = 0.01
"""Seconds that a mail waits at least. What waits is left to the relay, so no request ever talks to a mail server."""
TRIED_SECONDS = 86_400
"""For so long a mail is tried again that was refused for now, such as by a letter box that is full."""


class Deferred(NotYet):
    """The mail server refuses this mail for now. The message is its code."""


@dataclass(frozen=True)
class Letter:
    """Whom a mail goes to, and what it says."""

    to: str = field(repr=False)
    template: str
    language: str
    link: str | None = field(default=None, repr=False)
    """What follows the service's own address in the link that the mail carries."""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)


class SendMail(Effect):
    """Base of all mails. Each is a stream of its own, so that one that is refused holds back no other. It is sent at
    least once, each time with the same Message-ID: where the connection is lost after the mail, nobody knows whether
    the server took it. The letter is written when it is sent. So no secret of it is ever stored in the outbox, and its
    time begins then."""

    queue: ClassVar = MAIL
    mail_id: uuid.UUID = Field(default_factory=new_id)

    @property
    def aggregate(self) -> str:
        return f"{MAIL}:{self.mail_id}"

    @property
    def delay(self) -> float:
        return RELAY_ALONE

    @abstractmethod
    async def write(self, to: Any) -> Letter | None:
        """The letter, or None when there is nobody to send it to any more. Raises StoreUnavailable."""

    async def apply(self, to: Any) -> None:
        try:
            await to.mailer.send(self.mail_id, lambda: self.write(to))
        except NotYet as refused:
            if time.time() - (self.mail_id.int >> 80) / 1000 > TRIED_SECONDS:  # a UUIDv7 begins with its time
                raise Hopeless(str(refused)) from None
            raise
