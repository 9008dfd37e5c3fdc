"""Where it takes place: real servers, two apps behind a proxy to each store, and the faults that strike them."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from config import Settings
from tests.chaos.failovers import Failovers, failovers_in
from tests.chaos.replica_set import ReplicaSet, three_nodes_in
from tests.chaos.roll import SETTINGS as ROLL_SETTINGS
from tests.chaos.roll import Release, ReleaseName, Roll
from tests.chaos.schedule import APPS, TAKES_AWAY, AppName, Fault, Kind, Target
from tests.chaos.strikes import strike
from tests.under_test import Lab, migrate, own_lab
from tristore.embedded.servers import STORES, Store
from tristore.settings import DsnField
from tristore.testing.lab import PROJECT, RawConnection, free_port, until
from tristore.testing.proxy import Proxy, proxy_to
from tristore.testing.stores import environment

PURGE_SECONDS = 7
"""Longer than anything hangs: nothing that was under way at a first pass may land after the second."""
POLL_SECONDS = 1.0
MAX_ATTEMPTS = 3
"""So few that a fault outlasts them: whatever counts an outage as a failure parks what must not be parked."""
LAB_SETTINGS = {
    "PURGE_SECONDS": str(PURGE_SECONDS),
    "OUTBOX_POLL_SECONDS": str(POLL_SECONDS),
    "OUTBOX_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    "LIVE_POLL_SECONDS": "0.5",
    "ACCESS_LOG": "false",
    "LOG_LEVEL": "INFO",
}
DRIVERS = ("pymongo", "motor")
"""Of each app, where MongoDB fails over: the drivers find its new primary each in its own way."""
START_PATIENCE, STOP_PATIENCE = 30, 5
GRACE = 15
"""Seconds in which an app that is rolled must have ended by itself."""
MOST_AT_ONCE = 40
"""Of the newest faults. Those before them are over."""
LOOK_AGAIN_SECONDS = 0.3
LAST_WORDS = 2000
NEVER = 10**9


@dataclass
class AppProcess:
    """An app on a port of its own, which it keeps when it is started again."""

    name: AppName
    env: Mapping[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    release: str = ""
    """The name of the release that it is, in a roll."""

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def kills(self) -> Path:
        """Where it writes at which call it kills itself."""
        return self.folder / f"{self.name}.kills"

    async def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.app", str(self.port), str(self.kills)),
                cwd=self.folder,  # no .env there
                env=dict(self.env),
                stdout=log,
                stderr=log,
            )
        await until(self.is_live, START_PATIENCE)

    async def kill(self) -> None:
        assert self.process
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, patience: float = STOP_PATIENCE) -> bool:
        """Whether it has ended by itself."""
        if self.process and self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), patience)
            except TimeoutError:
                await self.kill()
                return False
        return True

    async def become(self, release: Release) -> str:
        """End as a pod does, and begin as one of a release. Returns what went wrong."""
        has_ended = await self.stop(GRACE)
        self.env = {**self.env, **release.environment}
        try:
            await self.start()
            await until(self.is_ready, START_PATIENCE)
        except TimeoutError:
            return f"{self.name} does not begin as one of the {release.name} release: see its log"
        self.release = release.name
        return "" if has_ended else f"{self.name} had to be killed {GRACE} s after SIGTERM"

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def is_live(self) -> bool:
        return await self.ask("/health/live", {}) is not None

    async def is_ready(self) -> bool:
        return await self.ask("/health/ready", {}) == {"status": "ok"}

    async def ask(self, path: str, headers: dict[str, str]) -> object:
        """The JSON of an answer, None when there is none."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return None
        connection = RawConnection(reader, writer)
        try:
            async with asyncio.timeout(2):
                return (await connection.request("GET", path, headers))[1]
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return None
        finally:
            connection.abort()


@dataclass(eq=False)
class Blow:
    """A fault that strikes, and when: by the monotonic clock."""

    fault: Fault
    began: float = field(default_factory=time.monotonic)
    in_force: float = float("inf")
    lifted: float = float("inf")
    """When it began to be taken back."""
    over: float = float("inf")


class Arena:
    def __init__(
        self,
        lab: Lab,
        proxies: dict[Store, Proxy],
        apps: Sequence[AppProcess],
        replica_set: ReplicaSet | None = None,
        failovers: Failovers | None = None,
        releases: Mapping[ReleaseName, Release] | None = None,
    ) -> None:
        """`releases`: between which the apps are rolled."""
        self.lab = lab
        self.proxies = proxies
        self.apps = apps
        self._replica_set = replica_set
        self.failovers = failovers
        self.releases = releases or {}
        self.complaints: list[str] = []
        """What went wrong in a roll."""
        self.blows: list[Blow] = []
        self._struck: dict[Target, asyncio.Lock] = defaultdict(asyncio.Lock)
        """A server that was killed needs its time to start: what strikes it next waits."""

    @property
    def settings(self) -> Settings:
        """Of the servers themselves, without a proxy or a Sentinel between."""
        failovers = self.failovers
        return failovers.settings(self.lab.settings, failovers.redis_now) if failovers else self.lab.settings

    @property
    def mix(self) -> str:
        """The releases of the apps, in a roll."""
        return " ".join(app.release for app in self.apps).strip()

    def struck_between(self, start: float, end: float, target: Target | None = None) -> bool:
        """Whether any fault, or any of this target, was active at any time in between."""
        return any(
            blow.began <= end and start <= blow.over and target in {None, blow.fault.target}
            for blow in reversed(self.blows[-MOST_AT_ONCE:])
        )

    def away_between(self, start: float, end: float) -> dict[Target, Kind]:
        """Which stores could not serve during all of that time, and by which kind of fault."""
        return {
            blow.fault.target: blow.fault.kind
            for blow in self.blows[-MOST_AT_ONCE:]
            if blow.fault.kind in TAKES_AWAY and blow.in_force <= start and end <= blow.lifted
        }

    def last_fault_ended_at(self) -> float:
        return max((blow.over for blow in self.blows), default=time.monotonic())

    def killed_at_calls(self) -> list[str]:
        return [line for app in self.apps if app.kills.exists() for line in app.kills.read_text().splitlines()]

    async def suffer(self, faults: Sequence[Fault]) -> None:
        """Go through a round. Afterwards all is well again."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                tasks.create_task(self._strike(fault, began + fault.at))

    async def _strike(self, fault: Fault, at: float) -> None:
        await asyncio.sleep(at - time.monotonic())
        async with self._struck["postgresql" if self.releases else fault.target]:  # the steps of a roll: one at a time
            await self._strike_now(fault)

    async def _strike_now(self, fault: Fault) -> None:
        blow = Blow(fault)
        self.blows.append(blow)
        if self.releases:
            self.complaints += filter(None, [await self._roll(fault)])
        elif fault.target in APPS:
            await self._strike_app(fault, self.apps[APPS.index(fault.target)])
        else:
            await self._strike_store(blow, next(store for store in STORES if store == fault.target))
        blow.over = time.monotonic()

    async def _roll(self, step: Fault) -> str:
        """Take a step of a roll. Returns what went wrong."""
        if step.kind == "migrate":
            try:
                await self.releases["new"].migrate(self.settings)
            except RuntimeError as error:
                return str(error)
            return ""
        release = self.releases["new" if step.kind == "roll forward" else "old"]
        return await self.apps[APPS.index(step.target)].become(release)

    async def _strike_app(self, fault: Fault, app: AppProcess) -> None:
        if fault.kind == "hang":
            app.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            app.signal(signal.SIGCONT)
            return
        if fault.kind == "kill":
            await app.kill()
            await asyncio.sleep(fault.seconds)
        elif not await self._doomed(fault, app):
            return
        await app.start()

    async def _doomed(self, fault: Fault, app: AppProcess) -> bool:
        """Arm it, and wait until it has killed itself; if the stores do not get it so far, disarm it."""
        assert app.process
        await app.ask("/health/live", {"X-Kill-At": str(int(fault.amount))})
        with suppress(TimeoutError):
            await asyncio.wait_for(app.process.wait(), fault.seconds)
            return True
        while app.process.returncode is None and not await app.ask("/health/live", {"X-Kill-At": str(NEVER)}):
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return app.process.returncode is not None

    async def _strike_store(self, blow: Blow, store: Store) -> None:
        if self.failovers:
            async with self.failovers.strike(blow.fault.kind, store):
                await asyncio.sleep(blow.fault.seconds)
            return
        async with self._block(blow.fault, store):
            blow.in_force = time.monotonic()
            await asyncio.sleep(blow.fault.seconds)
            blow.lifted = time.monotonic()

    def _block(self, fault: Fault, store: Store) -> AbstractAsyncContextManager[None]:
        if fault.kind == "failover":
            assert self._replica_set
            return self._replica_set.failover()
        return strike(fault, store, self.proxies[store], self.lab)


@asynccontextmanager
async def arena_in(
    folder: Path,
    variant: str,
    seed: int,
    more: Mapping[str, str],
    *,
    three_nodes: bool,
    replicated: bool,
    clustered: bool,
    roll: Roll | None = None,
) -> AsyncIterator[Arena]:
    """Start everything, and stop it at the end. `variant` names the broken variant, or is empty;
    `more` is environment of the apps. In a `roll` all is of the old release at first."""
    releases = roll.laid_out(folder) if roll else {}
    migrated = releases["old"].migrate if releases else migrate
    async with own_lab(folder, migrated) as lab, AsyncExitStack() as exits:
        replica_set = await exits.enter_async_context(three_nodes_in(folder)) if three_nodes else None
        if replica_set:
            lab = lab.on(lab.settings.model_copy(update={"mongodb_dsn": SecretStr(replica_set.dsn)}))
            await migrate(lab.settings)
        share = partial(random.Random(seed).uniform, 0, 1)
        ports = {store: lab.servers[store].port for store in STORES}
        proxies = {store: await exits.enter_async_context(proxy_to(ports[store], share)) for store in STORES}
        failovers = None
        if replicated:
            failovers = await exits.enter_async_context(failovers_in(folder, lab.settings, clustered=clustered))
        own = {"PYTHONPATH": str(PROJECT), "BREAK": variant}
        if releases:
            own = {**releases["old"].environment, **ROLL_SETTINGS}
        settings = failovers.settings(lab.settings, failovers.redis.dsn) if failovers else _behind(lab, proxies)
        env = environment(settings, **LAB_SETTINGS, **more, **own)
        drivers = DRIVERS if replicated else DRIVERS[:1] * len(APPS)
        release = "old" if releases else ""
        apps = [
            AppProcess(name, env | {"MONGODB_DRIVER": driver}, folder, release=release)
            for name, driver in zip(APPS, drivers, strict=True)
        ]
        arena = Arena(lab, proxies, apps, replica_set, failovers, releases)
        for app in arena.apps:
            exits.push_async_callback(app.stop)
        try:
            await asyncio.gather(*(app.start() for app in arena.apps))
        except TimeoutError as late:  # such as an old release that wants other libraries
            said = (folder / f"{APPS[0]}.log").read_text()[-LAST_WORDS:]
            raise RuntimeError(f"The apps do not start. The last that one says:\n{said}") from late
        yield arena


def _behind(lab: Lab, proxies: Mapping[Store, Proxy]) -> Settings:
    names: dict[Store, DsnField] = {"postgresql": "postgres_dsn", "redis": "redis_dsn", "mongodb": "mongodb_dsn"}
    ports = {store: (f":{lab.servers[store].port}", f":{proxies[store].port}") for store in names}
    behind = {str(name): SecretStr(lab.settings.dsn(name).replace(*ports[store])) for store, name in names.items()}
    return lab.settings.model_copy(update=behind)
