"""A run: rounds of faults under load, and after each, when all faults have ended and nothing is owed, the checks."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos.arena import POLL_SECONDS, PURGE_SECONDS, Arena, arena_in
from tests.chaos.checks import Checks
from tests.chaos.client import Client
from tests.chaos.curator import CAPACITIES, Catalogue
from tests.chaos.failovers import SOON
from tests.chaos.guests import Guest, guests
from tests.chaos.health import HealthWatch
from tests.chaos.leaks import holdings, leaks
from tests.chaos.learner import Learner
from tests.chaos.machine import Machine
from tests.chaos.memory import History, Tally, Violation
from tests.chaos.plans import Course
from tests.chaos.roll import MIXES
from tests.chaos.schedule import Fault
from tests.chaos.snapshot import query, redises, take
from tristore.outbox.pauses import PAUSE_SECONDS
from tristore.outbox.repository import LEASE_SECONDS, LONGEST_DELAY
from tristore.testing.lab import until

CLIENTS = 20
CONVERGE_SECONDS = LONGEST_DELAY + LEASE_SECONDS + PAUSE_SECONDS + POLL_SECONDS + PURGE_SECONDS
"""What failed just before all was well waits for the longest time; a lease may have to run out, and a relay to find it;
and a second pass is only counted from then."""
WARM_UP_SECONDS = 5.0
TOKENS_TRIED = 200
WAITING = """
SELECT aggregate, store, pending, attempts, dead, last_error, due_at - now() AS due, lease_until - now() AS leased
FROM outbox_streams WHERE pending > 0
"""
OWED = """
SELECT (SELECT count(*) FROM outbox_streams WHERE pending > 0 AND NOT dead) +
       (SELECT count(*) FROM outbox LEFT JOIN outbox_streams USING (aggregate, store) WHERE dead IS NOT TRUE) AS n
"""
"""What is dead stays so: it is not waited for, and found by the checks."""


@dataclass
class Run:
    arena: Arena
    tally: Tally
    clients: list[Client]
    catalogue: Catalogue
    machine: Machine
    guests: Sequence[Guest]
    converged: list[float] = field(default_factory=list)

    @property
    def learners(self) -> list[Learner]:
        return [self.catalogue.keeper, *(learner for client in self.clients for learner in client.learners)]

    async def furnish(self) -> None:
        """An admin and the first courses."""
        keeper = self.catalogue.keeper
        assert await self.clients[0].register(keeper)
        # Both waits are for a broken variant that commits late: the user, and then the token, may not be there yet.
        await until(partial(self._make_admin, keeper.id), WARM_UP_SECONDS)
        async with redises(self.arena.settings) as primaries:
            for redis in primaries.values():
                await redis.flushall()
        assert await self.clients[0].sign_in(keeper)
        for capacity in CAPACITIES:
            await until(partial(self.clients[0].open_course_of, keeper, capacity), WARM_UP_SECONDS)

    async def _make_admin(self, user_id: str) -> bool:
        sql = f"UPDATE users SET role = 'admin' WHERE id = '{user_id}' RETURNING id"
        return bool(await query(self.arena.settings, sql))

    async def round(self, faults: Sequence[Fault], seconds: float) -> None:
        """Load and faults for so long, then the checks."""
        async with asyncio.TaskGroup() as tasks:  # if one fails, nothing goes on behind the back of who cleans up
            suffering = tasks.create_task(self.arena.suffer(faults))
            end = await self._work(seconds)
            if self.arena.releases and not (suffering.done() and self.tally.answered[self.arena.mix]):
                await suffering  # the machine was slow: what it has come to gets its load all the same
                end = await self._work(seconds / len(faults))
        self.tally.violations += map(Violation, self.arena.complaints)
        self.arena.complaints.clear()
        quiet_since = max(end, self.arena.last_fault_ended_at())
        await self._converge(quiet_since)
        if faults:
            self.converged.append(time.monotonic() - quiet_since)
        for guest in self.guests:
            await guest.look(self.arena.settings)
        stores = await take(self.arena.settings, another_release=bool(self.arena.releases))
        self.tally.violations += Checks(stores, self.learners, self.guests).all()
        if not self.tally.violations:  # a broken app may answer none of them, and each would be waited for
            await self._try_tokens()

    async def _work(self, seconds: float) -> float:
        """Load for so long. Returns when it should have ended."""
        end = time.monotonic() + seconds
        health = HealthWatch(self.arena, self.tally, self.machine)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health.look(end))
            for client in self.clients:
                tasks.create_task(client.work(end))
        health.close()
        return end

    async def _converge(self, since: float) -> None:
        while not await self._is_converged():
            took = time.monotonic() - since
            if took > CONVERGE_SECONDS + self.machine.lost_between(since, time.monotonic()):
                what = f"not converged within {took:.0f} s; guests at rest: {await self._are_guests_at_rest()}"
                waiting = [str(tuple(row.values())) for row in await query(self.arena.settings, WAITING)]
                self.tally.violations.append(Violation(what, tuple(waiting)))
                return
            await asyncio.sleep(0.05)
        self.machine.spared += time.monotonic() - since > CONVERGE_SECONDS

    async def quiet_round(self, faults: Sequence[Fault], seconds: float) -> None:
        """A round in which no app is killed, and none may keep anything of it."""
        await self.round([], WARM_UP_SECONDS)
        await self._rest()
        before = await holdings(self.arena)
        await self.round(faults, seconds)
        await self._rest()
        self.tally.violations += await leaks(self.arena, before, await holdings(self.arena))

    def judge_failovers(self) -> list[str]:
        """What each took. Seconds for which clients are refused although the store serves must be few."""
        if (failovers := self.arena.failovers) is None:
            return []
        told = []
        for outage, refused in failovers.refused(self.tally.refusals, self.machine.was_starved):
            took = outage.serves - outage.away
            told.append(f"{outage.store} {outage.kind}: {took:.1f} s without a primary, {refused:.1f} s more refused")
            late = refused - self.machine.lost_between(outage.serves, outage.serves + refused)
            if late > SOON:
                self.tally.violation(f"refused for too long: {told[-1]}", [])
            else:
                self.machine.spared += refused > SOON
        return sorted(told)

    def judge_roll(self) -> None:
        """Every mix of releases must have been asked."""
        for mix in MIXES if self.arena.releases else ():
            if not self.tally.answered[mix]:
                self.tally.violation(f"nothing was answered while the releases of the apps were: {mix}", [])

    async def _rest(self) -> None:
        for client in self.clients:
            await client.rest()

    async def _is_converged(self) -> bool:
        [row] = await query(self.arena.settings, OWED)
        return row["n"] == 0 and all((await self._are_guests_at_rest()).values())

    async def _are_guests_at_rest(self) -> dict[str, bool]:
        settings, learners = self.arena.settings, self.learners
        return {type(guest).__name__: await guest.is_at_rest(settings, learners) for guest in self.guests}

    async def _try_tokens(self) -> None:
        """Both apps must tell the same of the newest sessions."""
        known = [
            (learner, token, 200 if state == "living" and learner.state == "living" else 401)
            for learner in self.learners
            for token, state in learner.sessions.items()
            if state in {"living", "ended"} and learner.state in {"living", "ended"}
        ]
        for client, (learner, token, expected) in zip(self.clients * TOKENS_TRIED, known[-TOKENS_TRIED:], strict=False):
            for status in await client.try_token(learner, token):
                if status != expected:
                    what = f"session {token[:6]} of {learner.name} is answered {status}, not {expected}"
                    self.tally.violation(what, learner.history.about(token[:6]))


@asynccontextmanager
async def prepared(seed: int, folder: Path, variant: str, course: Course) -> AsyncIterator[Run]:
    present = guests()
    more = {name: value for guest in present for name, value in guest.settings.items()}
    for guest in present:
        await guest.arrive()
    kinds = {"three_nodes": course.three_nodes, "replicated": course.replicated, "clustered": course.clustered}
    starting = arena_in(folder, variant, seed, more, **kinds, roll=course.roll)
    async with starting as arena, Machine(lambda: [app.pid for app in arena.apps]).watched() as machine:
        tally = Tally()
        catalogue = Catalogue(Learner(History(tally.began)))
        clients = [Client(arena, tally, f"{seed}/{i}", catalogue, course.habits, present) for i in range(CLIENTS)]
        run = Run(arena, tally, clients, catalogue, machine, present)
        try:
            await run.furnish()
            yield run
        finally:
            for client in clients:
                await client.rest()
            for guest in present:
                await guest.leave()
