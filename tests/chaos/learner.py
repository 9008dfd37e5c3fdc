"""One user of the API as seen from outside: what it asked for, and what became of it."""

import secrets
from dataclasses import dataclass, field

from tests.chaos.memory import History, State, Talk, Value

PASSWORD = "correct horse 9"


@dataclass
class Learner:
    history: History
    name: str = field(default_factory=lambda: f"u{secrets.token_hex(6)}")
    state: State = "asked for"
    id: str = ""
    welcome: str = ""
    bio: Value = field(default_factory=lambda: Value(""))
    changes_sent: int = 0
    changes_acknowledged: int = 0
    sign_ins_sent: int = 0
    sessions: dict[str, State] = field(default_factory=dict)
    """By token."""
    talks: dict[str, Talk] = field(default_factory=dict)
    titles_asked_for: set[str] = field(default_factory=set)
    """Of conversations whose creation got no answer."""
    refused: set[str] = field(default_factory=set)
    """Texts of writes that were refused for good."""
    names: set[str] = field(default_factory=set)
    """Of what else is the learner's: histories are found by them."""
    versions: dict[int, int] = field(default_factory=dict)
    """The newest of its profile that each process has acknowledged."""

    def wrote(self, process: int, version: int) -> None:
        self.versions[process] = max(version, self.versions.get(process, 0))

    @property
    def account(self) -> dict[str, str]:
        return {"username": self.name, "email": f"{self.name}@example.com", "password": PASSWORD}

    @property
    def tokens(self) -> list[str]:
        return [token for token, state in self.sessions.items() if state == "living"]

    @property
    def living_talks(self) -> list[Talk]:
        return [talk for talk in self.talks.values() if talk.state == "living"]
