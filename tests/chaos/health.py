"""What `/health` says while faults strike: never more than it may, never late, and what is so."""

import asyncio
import json
import re
import time

from tests.chaos.arena import Arena
from tests.chaos.connections import Answer, Connections
from tests.chaos.machine import STARVED_SECONDS, Machine
from tests.chaos.memory import Tally
from tests.chaos.schedule import TAKES_AWAY

BETWEEN_SECONDS = 0.4
LATEST_SECONDS = 1.5
UNNOTICED_SECONDS = 2.0
"""So long a store may be away, or an app and PostgreSQL be back, without being said to be."""
SECRET = re.compile(r"127\.0\.0\.1|localhost|://|test_[0-9a-f]{8}")
"""Addresses, DSNs, names of databases."""
UNAVAILABLE = "unavailable"


class HealthWatch:
    def __init__(self, arena: Arena, tally: Tally, machine: Machine) -> None:
        self._arena, self._tally, self._machine = arena, tally, machine
        self._connections = Connections(arena.apps)
        self._told: set[str] = set()

    async def look(self, until: float) -> None:
        """At every app, again and again."""
        await asyncio.gather(*(self._look_at(app, until) for app in range(len(self._arena.apps))))

    def close(self) -> None:
        self._connections.close()

    async def _look_at(self, app: int, until: float) -> None:
        while time.monotonic() < until:
            asked_at = time.monotonic()
            answer = await self._connections.ask(app, "GET", "/health", patience=2 * LATEST_SECONDS)
            self._judge(app, answer, asked_at, time.monotonic())
            await asyncio.sleep(BETWEEN_SECONDS)

    def _judge(self, app: int, answer: Answer, asked_at: float, answered_at: float) -> None:
        name = self._arena.apps[app].name
        if self._arena.struck_between(asked_at - UNNOTICED_SECONDS, answered_at, name):
            return
        lost = self._machine.lost_between(asked_at - UNNOTICED_SECONDS, answered_at)
        if not answer.status or answered_at - asked_at > LATEST_SECONDS:
            self._late(lost, f"{name} took {answered_at - asked_at:.1f} s to tell its health: {answer.status}")
        if not answer.status:
            return
        if SECRET.search(json.dumps(answer.body)):
            self._found(f"the health of {name} tells an address or a name", answer)
        if answer.status not in {200, 503} or (answer.status == 503) != (answer.body.get("status") == UNAVAILABLE):
            self._found(f"the health of {name} is answered {answer.status}", answer)
            return
        self._judge_states(name, answer, asked_at, answered_at, lost)

    def _judge_states(self, name: str, answer: Answer, asked_at: float, answered_at: float, lost: float) -> None:
        is_postgresql_struck = self._arena.struck_between(asked_at - UNNOTICED_SECONDS, answered_at, "postgresql")
        if answer.status == 503 and not is_postgresql_struck:
            self._late(lost, f"{name} is unavailable, and nothing strikes PostgreSQL: {answer.body['databases']}")
        for store, kind in self._arena.away_between(asked_at - UNNOTICED_SECONDS, answered_at).items():
            if answer.body["databases"][store] == "connected":
                self._found(
                    f"{name} calls {store} connected, which {TAKES_AWAY[kind]} for {UNNOTICED_SECONDS:.0f} s", answer
                )

    def _late(self, lost: float, what: str) -> None:
        """Violations of time are forgiven on a starved machine."""
        if lost > STARVED_SECONDS:
            self._machine.spared += 1
        else:
            self._tally.violation(what, [])

    def _found(self, what: str, answer: Answer) -> None:
        if what not in self._told:  # it is asked often
            self._told.add(what)
            self._tally.violation(what, [json.dumps(answer.body)])
