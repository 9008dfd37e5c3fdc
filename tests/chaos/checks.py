"""What must be true of the stores when all faults have ended and nothing is owed any more."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.user_service import WELCOME_TITLE
from tests.chaos.guests import Guest
from tests.chaos.learner import Learner
from tests.chaos.memory import WHILE_ERASED, Talk, Violation
from tests.chaos.snapshot import Entry, Row, Snapshot

OWED_BY_OUTBOX = ("registered", "signed_in", "profile_changed")
PROFILE_FIELDS = ("id", "username", "email", "role", "version", "language", "level", "display_name", "bio")


@dataclass(frozen=True)
class Checks:
    stores: Snapshot
    learners: Sequence[Learner]
    guests: Sequence[Guest]

    def all(self) -> list[Violation]:
        """Every violation there is."""
        groups = (
            self._outbox(),
            *(self._learner(learner) for learner in self.learners),
            *(self._user(user) for user in self.stores.users.values()),
            self._strays(),
            *(self._numbers(conversation) for conversation in self.stores.conversations),
            *(self._cached(entry) for entry in self.stores.cache),
            *(guest.of_all(list(self.learners), self.stores, self._found) for guest in self.guests),
        )
        return [violation for group in groups for violation in group]

    def _outbox(self) -> Iterator[Violation]:
        for effect in self.stores.outbox:
            yield self._found(f"still owed: {effect['name']} of {effect['aggregate']}", effect["payload"])
        for stream in self.stores.streams:
            if stream["dead"] or stream["pending"] or stream["lease_token"]:
                yield self._found(f"a stream is not at rest: {stream}", stream["aggregate"])

    # What the clients remember.

    def _learner(self, learner: Learner) -> Iterator[Violation]:
        user = self.stores.users.get(learner.id)
        if learner.state == "asked for":
            return  # there whole or not at all: _user
        for guest in self.guests:
            yield from guest.of_learner(learner, self.stores)
        for talk in learner.talks.values():
            yield from self._given(learner, talk)
        if user is None:
            yield of(learner, f"user {learner.name} was acknowledged and is not there", learner.name)
        elif learner.state == "living":
            yield from self._living(learner, user)
        elif learner.state == "ended" and not user["erased_at"]:
            yield of(learner, f"user {learner.name} was erased and is there", learner.name)

    def _living(self, learner: Learner, user: Row) -> Iterator[Violation]:
        if user["erased_at"]:
            yield of(learner, f"user {learner.name} is erased, but did not ask for it", learner.name)
            return
        if user["bio"] not in learner.bio.possible:
            what = f"the bio of {learner.name} is {user['bio']!r}, not one of {learner.bio.possible}"
            yield of(learner, what, *learner.bio.possible, user["bio"] or "PATCH")
        changes = user["version"] - 1
        if not learner.changes_acknowledged <= changes <= learner.changes_sent:
            told = f"{learner.changes_acknowledged} acknowledged of {learner.changes_sent} sent"
            yield of(learner, f"the profile of {learner.name} was changed {changes} times, {told}", "PATCH")
        for token, state in learner.sessions.items():
            session = self.stores.sessions.get(hashlib.sha256(token.encode()).hexdigest())
            if state == "living" and (session is None or session["revoked_at"]):
                yield of(learner, f"session {token[:6]} of {learner.name} is not living", token[:6])
            if state == "ended" and session and not session["revoked_at"]:
                yield of(learner, f"session {token[:6]} of {learner.name} was ended and lives", token[:6])
        for talk in learner.talks.values():
            yield from self._talk(learner, talk)
        yield from self._nothing_refused(learner, user)
        yield from self._nothing_unasked(learner)

    def _talk(self, learner: Learner, talk: Talk) -> Iterator[Violation]:
        conversation, messages = self.stores.conversations.get(talk.id), self.stores.messages.get(talk.id, [])
        if talk.state == "ended" and (conversation or messages):
            yield of(learner, f"conversation {talk.id} was deleted, {len(messages)} messages are left", talk.id)
        if talk.state != "living":
            return
        if conversation is None:
            yield of(learner, f"conversation {talk.id} was acknowledged and is not there", talk.id)
        elif conversation["title"] not in talk.title.possible:
            what = f"the title of {talk.id} is {conversation['title']!r}, not one of {talk.title.possible}"
            yield of(learner, what, *talk.title.possible, conversation["title"])
        stored = {message["id"]: message for message in messages}
        for id_, written in talk.messages.items():
            message = stored.pop(id_, None)
            if message is None and written.seq:
                yield of(learner, f"message {id_} of {talk.id} was acknowledged and is not there", id_)
            elif message and written.seq not in {None, message["seq"]}:
                yield of(learner, f"message {id_} was number {written.seq} and is {message['seq']}", id_)
            if message and message["content"] != written.content:
                yield of(learner, f"message {id_} says {message['content']!r}, not {written.content!r}", id_)
        for id_ in stored:
            yield of(learner, f"nobody wrote message {id_} of {talk.id}", id_)

    def _given(self, learner: Learner, talk: Talk) -> Iterator[Violation]:
        """A number that was given away never stands for another message: not for another reader, nor in the store. What
        a process takes for a conversation that it does not know to be deleted yet begins anew, and goes with it."""
        written = [(message.seq, message.content) for message in talk.messages.values() if message.seq]
        kept = self.stores.messages.get(talk.id, []) if talk.state == learner.state == "living" else []
        stored = [(message["seq"], message["content"]) for message in kept]
        seen = [event for guest in self.guests for event in guest.seen(learner, talk)]
        for number, content in [*written, *(event for event in seen if event[1] != WHILE_ERASED), *stored]:
            if (first := talk.given.setdefault(number, content)) != content:
                yield of(learner, f"number {number} of {talk.id} was {first!r} and is {content!r}", talk.id)

    def _nothing_refused(self, learner: Learner, user: Row) -> Iterator[Violation]:
        texts = {user["bio"]} | {m["content"] for talk in learner.talks for m in self.stores.messages.get(talk, [])}
        for text in learner.refused & texts:
            yield of(learner, f"{text!r} was refused and is there", text)

    def _nothing_unasked(self, learner: Learner) -> Iterator[Violation]:
        titles: list[str] = []
        for id_, conversation in self.stores.conversations.items():
            if conversation["user_id"] == learner.id and id_ not in {learner.welcome, *learner.talks}:
                titles.append(conversation["title"])
        for title in set(titles):
            if titles.count(title) > 1 or title not in learner.titles_asked_for:
                yield of(learner, f"{titles.count(title)} conversations {title!r} that nobody asked for", title)

    # What must hold for whatever is there.

    def _user(self, user: Row) -> Iterator[Violation]:
        id_ = user["id"]
        owned = [c for c in self.stores.conversations.values() if c["user_id"] == id_]
        activity = self.stores.activity.get(id_, [])
        sessions = [session for session in self.stores.sessions.values() if session["user_id"] == id_]
        if user["erased_at"]:
            keys = [key for key in self.stores.idempotency_keys if key["user_id"] == id_]
            left = {"conversations": owned, "activity": activity, "sessions": sessions, "idempotency keys": keys}
            for name, rows in left.items():
                if rows:
                    yield self._found(f"of the erased user {id_} {len(rows)} {name} are left: {rows[:3]}", id_)
            if any(user[name] is not None for name in ("username", "email", "password_hash", "bio")):
                yield self._found(f"of the erased user {id_} the name is left", id_)
            return
        if user["bio"] is None:
            yield self._found(f"user {id_} has no profile", id_)
        welcomes = [conversation for conversation in owned if conversation["title"] == WELCOME_TITLE]
        if len(welcomes) != 1:
            yield self._found(f"user {id_} has {len(welcomes)} welcome conversations", id_)
        happened = [item for item in activity if item["action"] in OWED_BY_OUTBOX]
        counts = {action: sum(item["action"] == action for item in happened) for action in OWED_BY_OUTBOX}
        signed_in = self._sign_ins(id_, {session["token_hash"] for session in sessions}, counts["signed_in"])
        expected = {"registered": 1, "signed_in": signed_in, "profile_changed": user["version"] - 1}
        if counts != expected and user["role"] == "learner":  # the lab itself has made the admin
            yield self._found(f"the activity of user {id_} is {counts}, not {expected}", id_)
        times = [item["at"] for item in happened]
        if times != sorted(times):
            late = next(i for i in range(1, len(times)) if times[i] < times[i - 1])
            pair = [(item["action"], str(item["at"])) for item in happened[late - 1 : late + 1]]
            yield self._found(f"the activity of user {id_} was written out of order: {pair}", id_)

    def _sign_ins(self, user: str, there: set[str], found: int) -> int:
        """How many there were. Sessions that have ended are deleted after a while, and no client remembers one whose
        answer was lost: so many more may have been found."""
        for learner in self.learners:
            if learner.id == user:
                known = there | {hashlib.sha256(token.encode()).hexdigest() for token in learner.sessions}
                unanswered = learner.sign_ins_sent - len(learner.sessions)
                return min(max(found, len(known)), len(known) + unanswered)
        return len(there)

    def _strays(self) -> Iterator[Violation]:
        for conversation in self.stores.conversations.values():
            if conversation["user_id"] not in self.stores.users:
                yield self._found(f"conversation {conversation['_id']} belongs to nobody", conversation["user_id"])
        for id_, messages in self.stores.messages.items():
            if id_ not in self.stores.conversations:
                yield self._found(f"{len(messages)} messages belong to no conversation: {id_}", id_)
        for id_ in self.stores.activity:
            if id_ not in self.stores.users:
                yield self._found(f"activity of nobody: {id_}", id_)

    def _numbers(self, conversation: str) -> Iterator[Violation]:
        numbers = [message["seq"] for message in self.stores.messages.get(conversation, [])]
        if numbers != list(range(1, len(numbers) + 1)):
            yield self._found(f"messages of {conversation} are numbered {shortened(numbers)}", conversation)

    def _cached(self, entry: Entry) -> Iterator[Violation]:
        if entry.of == "session":
            session = self.stores.sessions.get(entry.id)
            lives = session is not None and not session["revoked_at"]
            if (entry.kind == "v") > lives or (entry.kind == "n" and lives):
                what = f"Redis holds {entry.kind}{entry.version} of a session that is {'living' if lives else 'over'}"
                yield self._found(what, session["user_id"] if session else entry.id)
            return
        user = self.stores.users.get(entry.id)
        lives = user is not None and not user["erased_at"]
        if not user or not lives:
            if entry.kind != "n":
                yield self._found(f"Redis holds {entry} of a user who is not there", entry.id)
        elif entry.kind == "n" or (entry.kind == "t" and entry.version > user["version"]):
            yield self._found(f"Redis holds {entry}, PostgreSQL version {user['version']}", entry.id)
        elif entry.kind == "v":
            cached = json.loads(entry.body)
            different = {f: (cached[f], user[f]) for f in PROFILE_FIELDS if cached[f] != user[f]}
            if different or entry.version != user["version"]:
                yield self._found(f"Redis and PostgreSQL differ about user {entry.id}: {different}", entry.id)

    def _found(self, what: str, about: str) -> Violation:
        """With the history of the learner that it is about, if any is."""
        for learner in self.learners:
            names = {learner.id, learner.name, learner.welcome, *learner.talks, *learner.names} - {""}
            if any(name in about for name in names):
                return of(learner, what, about)
        return Violation(what)


def of(learner: Learner, what: str, *names: str) -> Violation:
    return Violation(what, tuple(learner.history.about(*names)))


def shortened(numbers: Iterable[Any]) -> str:
    text = str(list(numbers))
    return text if len(text) < 200 else f"{text[:100]} ... {text[-100:]}"
