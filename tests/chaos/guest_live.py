"""Live messages in the lab: listeners, and what they must have heard."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pymongo import AsyncMongoClient

from config import Settings
from tests.chaos.checks import of, shortened
from tests.chaos.client import Client
from tests.chaos.guests import Guest, Operation
from tests.chaos.learner import Learner
from tests.chaos.listener import Listener
from tests.chaos.memory import Talk, Violation
from tests.chaos.snapshot import Snapshot

LISTENERS = 2


class Ear:
    def __init__(self, client: Client, listeners: Callable[[Learner], list[Listener]]) -> None:
        self._client = client
        self._listeners = listeners

    async def listen(self, learner: Learner) -> bool:
        if sum(not listener.is_over for listener in self._listeners(learner)) >= LISTENERS:
            return await self._client.write(learner)
        talk, token = self._client.chance.choice(learner.living_talks), learner.tokens[0]
        self._listeners(learner).append(
            Listener(self._client.arena.apps, self._client.chance.randint(0, 1), talk.id, token)
        )
        return True


class Live(Guest):
    def __init__(self) -> None:
        self._of: defaultdict[str, list[Listener]] = defaultdict(list)

    def operations(self, client: Client) -> list[tuple[Operation, int]]:
        return [(Ear(client, lambda learner: self._of[learner.name]).listen, 4)]

    async def hang_up(self, learner: Learner, *, forget: bool) -> None:
        await asyncio.gather(*(listener.close() for listener in self._of[learner.name]))
        if forget:
            self._of[learner.name].clear()

    async def is_at_rest(self, settings: Settings, learners: list[Learner]) -> bool:
        """Whether every message was heard."""
        async with AsyncMongoClient[dict[str, Any]](settings.dsn("mongodb_dsn")) as client:
            messages = client[settings.mongodb_database].messages
            counted = await messages.aggregate([{"$group": {"_id": "$conversation_id", "n": {"$sum": 1}}}])
            counts = {document["_id"]: document["n"] for document in await counted.to_list(None)}
        return all(
            len(listener.numbers) >= counts.get(listener.conversation, 0)
            for learner in learners
            for listener in self._of[learner.name]
            if not listener.is_over
        )

    def seen(self, learner: Learner, talk: Talk) -> list[tuple[int, str]]:
        listeners = [listener for listener in self._of[learner.name] if listener.conversation == talk.id]
        return [event for listener in listeners for event in listener.seen]

    def of_learner(self, learner: Learner, stores: Snapshot) -> Iterator[Violation]:
        if learner.state != "living":
            return
        for listener in self._of[learner.name]:
            talk, session = learner.talks[listener.conversation], learner.sessions[listener.token]
            expected = [(m["seq"], m["content"]) for m in stores.messages.get(talk.id, [])]
            if talk.state != "living" or session != "living":
                expected = expected[: len(listener.seen)] if talk.state == "living" else listener.seen
            if listener.seen != expected or listener.numbers != list(range(1, len(expected) + 1)):
                what = f"a listener to {talk.id} saw {shortened(listener.numbers)}, not 1..{len(expected)}"
                yield of(learner, what, talk.id)


GUEST = Live
