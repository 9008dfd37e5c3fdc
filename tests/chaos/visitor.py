"""What every client does: it asks, any of the apps, until it is answered, and remembers."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.connections import Answer, Connections
from tests.chaos.learner import Learner
from tests.chaos.memory import Tally

BEFORE_REPEATING = (0.2, 1.0)
"""Seconds; `Retry-After` says 1."""
OUTLIVES = 8.0
"""Seconds after the end of a round for which what has no answer yet is repeated."""


class Visitor:
    def __init__(self, arena: Arena, tally: Tally, seed: str) -> None:
        self.arena, self.tally = arena, tally
        self.chance = random.Random(seed)
        self._connections = Connections(arena.apps)
        self._until = 0.0

    async def try_token(self, learner: Learner, token: str) -> list[int]:
        """What each app answers to it."""
        statuses = []
        patience = time.monotonic() + OUTLIVES
        for app in range(len(self.arena.apps)):
            answer = await self.read_profile(learner, token, app)
            while answer.is_open and time.monotonic() < patience:
                await asyncio.sleep(BEFORE_REPEATING[0])
                answer = await self.read_profile(learner, token, app)
            statuses.append(answer.status)
        return statuses

    async def read_everywhere(self, learner: Learner, token: str) -> list[Answer]:
        """The profile, once through each app."""
        apps = range(len(self.arena.apps))
        return await asyncio.gather(*(self.read_profile(learner, token, app) for app in apps))

    async def read_profile(self, learner: Learner, token: str, app: int | None = None) -> Answer:
        """Nobody reads less than it was told that it wrote, through the same process."""
        known = dict(learner.versions)
        answer = await self.ask(learner, "GET", "/users/me", token, app=app)
        if answer.is_success and answer.body["version"] < (written := known.get(answer.process, 0)):
            what = f"{learner.name} wrote version {written} of its profile and reads {answer.body['version']}"
            self.violation(learner, what, "/users/me")
        return answer

    async def ask(self, learner: Learner, method: str, path: str, token: str | None = None, body: Any = None,
                   app: int | None = None, **more: Any) -> Answer:  # fmt: skip
        app = self.chance.randrange(len(self.arena.apps)) if app is None else app
        sent_at = time.monotonic()
        answer = await self._connections.ask(app, method, path, token, body, **more)
        session = f" by {token[:6]}" if token else ""
        learner.history.note(
            f"{method} {path}{session} {body or ''} -> {answer.status or 'no answer'} {_short(answer.body)}"
            f" ({self.arena.apps[app].name}, {time.monotonic() - sent_at:.3f} s)"
        )
        if answer.is_success:
            self.tally.answered[self.arena.mix] += 1
        if answer.status == 503:
            self.tally.refusals.append((time.monotonic(), answer.body.get("store", "")))
        elif answer.status >= 500:
            self.violation(learner, f"{method} {path} is answered {answer.status}", path)
        return answer

    async def ask_until_answered(
        self, learner: Learner, method: str, path: str, token: str | None = None, body: Any = None,
        *, before: Callable[[], None] = lambda: None, **more: Any,
    ) -> Answer:  # fmt: skip
        while True:
            before()
            answer = await self.ask(learner, method, path, token, body, **more)
            if not answer.is_open or time.monotonic() > self._until + OUTLIVES:
                return answer
            await asyncio.sleep(self.chance.uniform(*BEFORE_REPEATING))

    def is_done(self, learner: Learner, answer: Answer, what: str) -> bool:
        """Nothing that is asked of it here may be refused."""
        if not answer.is_success and not answer.is_open:
            self.violation(learner, f"{learner.name} is refused {what}: {answer.status} {_short(answer.body)}", what)
        return answer.is_success

    def violation(self, learner: Learner, what: str, *names: str) -> None:
        self.tally.violation(what, learner.history.about(*names))

    def word(self) -> str:
        return f"{self.chance.randrange(16**10):010x}"


def _short(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    return " ".join(str(body[name]) for name in ("id", "seq", "version", "user_id", "detail") if name in body)
