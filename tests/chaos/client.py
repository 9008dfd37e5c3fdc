"""A client: learners one after the other, each signed up, busy for a while, and then erased or left in peace."""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.arena import Arena
from tests.chaos.curator import Catalogue
from tests.chaos.guests import Guest, Operation
from tests.chaos.learner import PASSWORD, Learner
from tests.chaos.memory import WHILE_ERASED, History, Tally
from tests.chaos.talker import Talker

THINKING = (0.02, 0.2)
ARRIVING = (0.0, 1.5)
SESSIONS, READERS = 3, 3
DELETED_WHILE_ERASED = 0.3
"""Of the conversations: what is deleted has a second pass of its own, which would hide that an erasure has none."""
ENDING_PATIENCE = 5.0
"""Seconds: whoever ends a session may wait until no process takes it any more."""


@dataclass(frozen=True)
class Habits:
    life: tuple[int, int] = (25, 70)
    """Operations of a learner."""
    erasing: float = 0.5
    """The share of learners who are erased in the end."""
    more: Mapping[str, int] = field(default_factory=dict)
    """How many times as often an operation is done."""
    together: float = 0.2
    """The share of writes that are three at once."""


class Client(Talker):
    """Every operation returns whether it was acknowledged, None when it was refused for good."""

    def __init__(
        self, arena: Arena, tally: Tally, seed: str, catalogue: Catalogue, habits: Habits, guests: Sequence[Guest]
    ) -> None:
        super().__init__(arena, tally, seed, catalogue)
        self._guests = guests
        self._habits = habits
        self.together = habits.together
        self.learners: list[Learner] = []
        self._left = 0
        operations: list[tuple[Operation, int]] = [
            (self.write, 46),
            (self.change_profile, 18),
            (self.read_while_changing, 8),
            (self.start_talk, 6),
            (self.rename_talk, 4),
            (self.delete_talk, 2),
            (self.write_again_otherwise, 3),
            (self.take_a_name, 3),
            (self.sign_in, 5),
            (self.sign_in_wrongly, 1),
            (self.sign_out, 3),
            (self.sign_out_everywhere, 1),
            (self.open_course, 1),
            (self.close_course, 1),
            *(operation for guest in guests for operation in guest.operations(self)),
        ]
        self._operations = [(do, weight * habits.more.get(do.__name__, 1)) for do, weight in operations]

    async def work(self, until: float) -> None:
        """Go on until then, and return when nothing is without its answer any more."""
        self._until = until
        await asyncio.sleep(self.chance.uniform(*ARRIVING))
        while time.monotonic() < until:
            await self._step()
            await asyncio.sleep(self.chance.uniform(*THINKING))

    async def rest(self) -> None:
        """Hang up, and listen no more."""
        self._connections.close()
        for learner in self.learners:
            await self._hang_up(learner, forget=True)

    async def _hang_up(self, learner: Learner, *, forget: bool) -> None:
        for guest in self._guests:
            await guest.hang_up(learner, forget=forget)

    async def _step(self) -> None:
        learner = self.learners[-1] if self.learners else None
        if learner is None or self._left <= 0 or learner.state != "living":
            if learner and learner.state == "living" and self.may_erase() and self._wants_to_go():
                await self._do(self.erase, learner)
                return
            learner = Learner(History(self.tally.began))
            self.learners.append(learner)
            self._left = self.chance.randint(*self._habits.life)
            await self._do(self.register, learner)
        elif not learner.tokens:
            await self._do(self.sign_in, learner)
        elif not learner.living_talks:
            await self._do(self.start_talk, learner)
        else:
            possible = [o for o in self._operations if self.may_erase() or o[0] != self.delete_talk]
            operations, weights = zip(*possible, strict=True)
            await self._do(self.chance.choices(operations, weights)[0], learner)
        self._left -= 1

    def _wants_to_go(self) -> bool:
        return self.chance.random() < self._habits.erasing

    async def _do(self, operation: Operation, learner: Learner) -> None:
        name = operation.__name__
        started = time.monotonic()
        self.tally.operations[name] += 1
        acknowledged = await operation(learner)
        if acknowledged is None:
            self.tally.refused += 1
        elif acknowledged:
            self.tally.acknowledged[name] += 1
            self.tally.under_fault += self.arena.struck_between(started, time.monotonic())
        else:
            self.tally.unanswered += 1

    async def register(self, learner: Learner) -> bool:
        answer = await self.ask_until_answered(
            learner, "POST", "/users/register", body=learner.account, key=learner.name
        )
        if not self.is_done(learner, answer, "its registration"):
            return False
        learner.id, learner.welcome = answer.body["user_id"], answer.body["welcome_conversation_id"]
        learner.state = "living"
        return True

    async def sign_in(self, learner: Learner) -> bool:
        if len(learner.tokens) >= SESSIONS:
            return await self._read_profile(learner)
        form = {"username": learner.name, "password": PASSWORD}
        learner.sign_ins_sent += 1
        answer = await self.ask(learner, "POST", "/auth/token", body=form, form=True)
        if not self.is_done(learner, answer, "its sign-in"):
            return False
        learner.sessions[answer.body["access_token"]] = "living"
        return True

    async def sign_in_wrongly(self, learner: Learner) -> None:
        form = {"username": learner.name, "password": "not this one"}
        answer = await self.ask(learner, "POST", "/auth/token", body=form, form=True)
        if answer.is_success:
            self.violation(learner, "a wrong password signs in", learner.name)

    async def sign_out(self, learner: Learner) -> bool:
        return await self._end_sessions(learner, "/auth/logout", [self.chance.choice(learner.tokens)])

    async def sign_out_everywhere(self, learner: Learner) -> bool:
        return await self._end_sessions(learner, "/auth/logout-all", learner.tokens)

    async def _end_sessions(self, learner: Learner, path: str, tokens: list[str]) -> bool:
        for token in tokens:
            learner.sessions[token] = "ending"
        answer = await self.ask_until_answered(learner, "POST", path, tokens[0], patience=ENDING_PATIENCE)
        if answer.status not in {204, 401}:  # 401: an earlier attempt got through
            return False
        for token in tokens:
            learner.sessions[token] = "ended"
        if answer.status == 204:
            await self._expect_refusals(learner, tokens)
        return True

    async def _expect_refusals(self, learner: Learner, tokens: list[str]) -> None:
        """Once it is acknowledged that a session has ended, no process takes its token."""
        for answers in await asyncio.gather(*(self.read_everywhere(learner, token) for token in tokens)):
            for app, answer in zip(self.arena.apps, answers, strict=True):
                if answer.is_success:
                    what = f"{app.name} takes a token of {learner.name} after its end was acknowledged"
                    self.violation(learner, what, learner.name, *(token[:6] for token in tokens))

    async def _read_profile(self, learner: Learner) -> bool:
        answer = await self.read_profile(learner, self.chance.choice(learner.tokens))
        return self.is_done(learner, answer, "reading its profile")

    async def change_profile(self, learner: Learner) -> bool:
        bio = f"bio {self.word()}"
        return await self._change(learner, bio, {"bio": bio})

    async def _change(self, learner: Learner, bio: str, body: dict[str, str]) -> bool:
        token = self.chance.choice(learner.tokens)

        def sent() -> None:
            learner.bio.ask_for(bio)
            learner.changes_sent += 1

        answer = await self.ask_until_answered(learner, "PATCH", "/users/me", token, body, before=sent)
        if not self.is_done(learner, answer, f"its {bio}"):
            return False
        learner.bio.acknowledge(bio)
        learner.changes_acknowledged += 1
        learner.wrote(answer.process, answer.body["version"])
        return True

    async def read_while_changing(self, learner: Learner) -> bool:
        """A race of fills with writes."""
        changing = asyncio.create_task(self._change_twice(learner))

        async def read() -> None:
            while not changing.done():
                await self._read_profile(learner)

        await asyncio.gather(*(read() for _ in range(READERS)))
        return await changing

    async def _change_twice(self, learner: Learner) -> bool:
        return await self.change_profile(learner) and await self.change_profile(learner)

    async def take_a_name(self, learner: Learner) -> bool | None:
        """Somebody else's."""
        others = [other for other in self.learners if other.state == "living" and other is not learner]
        if not others:
            return await self.change_profile(learner)
        refused = f"refused {self.word()}"
        body = {"username": others[-1].name, "bio": refused}
        answer = await self.ask(learner, "PATCH", "/users/me", self.chance.choice(learner.tokens), body)
        learner.refused.add(refused)
        if answer.is_success:
            self.violation(learner, "a name that was taken is given away", others[-1].name, refused)
        return None if answer.status == 409 else False

    async def erase(self, learner: Learner) -> bool:
        """While other requests of the same user are under way."""
        tokens = learner.tokens
        if not tokens:
            return await self.sign_in(learner)
        token = self.chance.choice(tokens)
        learner.state = "ending"
        busy = [
            asyncio.create_task(self._go_on_while_erased(request)) for request in self._last_requests(learner, token)
        ]
        await asyncio.sleep(self.chance.uniform(0, 0.1))
        answer = await self.ask_until_answered(learner, "DELETE", "/users/me", token, patience=ENDING_PATIENCE)
        await asyncio.gather(*busy)
        if answer.status not in {202, 401}:  # 401: an earlier attempt got through
            return False
        learner.state = "ended"
        await self._hang_up(learner, forget=False)
        if answer.status == 202:
            await self._expect_refusals(learner, tokens)
        return True

    async def _go_on_while_erased(self, request: Awaitable[object]) -> None:
        await asyncio.sleep(self.chance.uniform(0, 0.1))
        await request

    def _last_requests(self, learner: Learner, token: str) -> Iterator[Awaitable[object]]:
        """One attempt each, and whatever becomes of it is right: but whole, and nothing of it comes back."""
        for talk in learner.living_talks:
            path = f"/conversations/{talk.id}"
            for _ in range(3):
                body = {"id": self.word(), "content": WHILE_ERASED}
                yield self.ask(learner, "POST", f"{path}/messages", token, body)
            yield self.ask(learner, "PATCH", path, token, {"title": WHILE_ERASED})
            if self.chance.random() < DELETED_WHILE_ERASED:
                yield self.ask(learner, "DELETE", path, token)
        yield self.ask(learner, "PATCH", "/users/me", token, {"bio": WHILE_ERASED})
        yield self.ask(learner, "PATCH", "/users/me", token, {"username": f"u{self.word()}"})
        for guest in self._guests:
            yield from guest.last_requests(self, learner, token)
