"""Conversations as a client sees them: written to, renamed, deleted."""

import asyncio
import time

from tests.chaos.connections import Answer
from tests.chaos.curator import Curator
from tests.chaos.learner import Learner
from tests.chaos.memory import Talk, Value, Written

NO_MORE_ERASURES = 4.0
"""Seconds before the end of a round: the second pass of an erasure takes PURGE_SECONDS."""
TALKS = 5


class Talker(Curator):
    together: float
    """The share of writes that are three at once."""

    def may_erase(self) -> bool:
        return time.monotonic() < self._until - NO_MORE_ERASURES

    async def start_talk(self, learner: Learner) -> bool:
        if len(learner.living_talks) >= TALKS:
            return await self.write(learner)
        title = f"talk {self.word()}"
        answer = await self.ask(learner, "POST", "/conversations", self.chance.choice(learner.tokens), {"title": title})
        if not self.is_done(learner, answer, f"starting {title}"):
            learner.titles_asked_for.add(title)
            return False
        learner.talks[answer.body["id"]] = Talk(answer.body["id"], Value(title))
        return True

    async def rename_talk(self, learner: Learner) -> bool:
        talk, title = self.chance.choice(learner.living_talks), f"talk {self.word()}"
        answer = await self.ask_until_answered(
            learner, "PATCH", f"/conversations/{talk.id}", self.chance.choice(learner.tokens), {"title": title},
            before=lambda: talk.title.ask_for(title),
        )  # fmt: skip
        if not self.is_done(learner, answer, f"renaming {talk.id}"):
            return False
        talk.title.acknowledge(title)
        return True

    async def delete_talk(self, learner: Learner) -> bool:
        if not self.may_erase():
            return await self.write(learner)
        talk = self.chance.choice(learner.living_talks)
        talk.state = "ending"
        path = f"/conversations/{talk.id}"
        answer = await self.ask_until_answered(learner, "DELETE", path, self.chance.choice(learner.tokens))
        if answer.status not in {204, 404}:  # 404: an earlier attempt got through
            return False
        talk.state = "ended"
        return True

    async def write(self, learner: Learner) -> bool:
        talk = self.chance.choice(learner.living_talks)
        if self.chance.random() >= self.together:
            return await self._write(learner, talk)
        return all(await asyncio.gather(*(self._write(learner, talk) for _ in range(3))))

    async def _write(self, learner: Learner, talk: Talk) -> bool:
        id_ = self.word()
        written = talk.messages[id_] = Written(f"message {id_}")
        answer = await self._post(learner, talk, id_, written.content)
        if not self.is_done(learner, answer, f"message {id_} to {talk.id}"):
            return False
        written.seq = answer.body["seq"]
        return True

    async def _post(self, learner: Learner, talk: Talk, id_: str, content: str) -> Answer:
        token, body = self.chance.choice(learner.tokens), {"id": id_, "content": content}
        return await self.ask_until_answered(learner, "POST", f"/conversations/{talk.id}/messages", token, body)

    async def write_again_otherwise(self, learner: Learner) -> bool | None:
        """Another text under an id that is taken."""
        talk = self.chance.choice(learner.living_talks)
        taken = [id_ for id_, written in talk.messages.items() if written.seq]
        if not taken:
            return await self._write(learner, talk)
        refused = f"refused {self.word()}"
        learner.refused.add(refused)
        answer = await self._post(learner, talk, self.chance.choice(taken), refused)
        if answer.is_success:
            self.violation(learner, "another message under the same id", talk.id)
        return None if answer.status == 422 else False
