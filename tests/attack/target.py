"""The app that is attacked, and those who attack it."""

import asyncio
import itertools
import json
import resource
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from config import Settings
from tests.product.people import account
from tests.under_test import own_lab
from tristore.testing.lab import App

LIMITS = {name.upper(): str(field.default) for name, field in Settings.model_fields.items() if "rate_limit" in name}
"""What a clone gets. The other tests turn them off."""
SESSIONS, CONVERSATIONS, SEND_SECONDS = 5, 5, 5
"""The most of a user, and how long nothing may be taken of an answer: less than a clone gets, to be there soon."""
DESCRIPTORS = 4096
SECONDS = 90
"""So long an attack takes at most."""
Account = dict[str, str]
Headers = dict[str, str]


@dataclass(frozen=True)
class Row:
    """What came of an attack."""

    what: str
    attackers: int
    bound: str
    measured: str
    held: bool
    in_time: bool = False
    """Whether the bound is one of time or memory, which means little beside other work."""


@dataclass(frozen=True)
class Target:
    app: App
    attackers: int
    settings: Settings
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    @property
    def where(self) -> tuple[str, int]:
        return self.app.client.base_url.host, self.app.client.base_url.port or 80

    def elsewhere(self) -> Headers:
        """What our proxy says of a client that nobody has met before."""
        number = next(iter(self._numbers))
        return {"X-Forwarded-For": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}

    async def join(self) -> tuple[Account, Headers]:
        """A new user, and the headers of a session at an address of its own."""
        body, headers = account(), self.elsewhere()
        answer = await self.app.client.post("/users/register", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return body, await self.sign_in(body, headers)

    async def sign_in(self, body: Account, headers: Headers) -> Headers:
        form = {"username": body["username"], "password": body["password"]}
        answer = await self.app.client.post("/auth/token", data=form, headers=headers)
        assert answer.status_code == 200, answer.text
        return headers | {"Authorization": f"Bearer {answer.json()['access_token']}"}

    async def by_all(self, attack: Callable[[], Awaitable[str]], attackers: int = 0) -> Counter[str]:
        """What so many attackers were told, all at once."""
        async with asyncio.timeout(SECONDS):
            return Counter(await asyncio.gather(*(attack() for _ in range(attackers or self.attackers))))

    async def send(self, begin: bytes, piece: bytes, pause: float = 0) -> str:
        """Send a beginning, then the same piece until the server answers. Returns the status, or `cut off`."""
        reader, writer = await asyncio.open_connection(*self.where)
        reading = asyncio.create_task(reader.read())
        with suppress(ConnectionError):
            writer.write(begin)
            while not reading.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        answer = b""
        with suppress(ConnectionError):
            answer = await reading
        writer.transport.abort()
        return answer.split()[1].decode() if answer else "cut off"


def told(answers: Counter[str]) -> str:
    return ", ".join(f"{count} x {answer}" for answer, count in answers.most_common())


@asynccontextmanager
async def target(folder: Path, attackers: int) -> AsyncIterator[Target]:
    """An app as a clone runs it, on embedded stores, behind a proxy that it trusts: us."""
    few = {"SESSIONS_PER_USER": str(SESSIONS), "CONVERSATIONS_PER_USER": str(CONVERSATIONS)}
    patience = {"LIVE_SEND_SECONDS": str(SEND_SECONDS), "TRUSTED_PROXIES": json.dumps(["127.0.0.1"])}
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))  # what we start inherits it
    async with own_lab(folder / "stores") as lab, lab.app(**LIMITS | few | patience) as app:
        yield Target(app, attackers, lab.settings)
