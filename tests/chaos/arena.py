"""Where it takes place: real servers, two apps behind a proxy to each store, and the faults that strike them."""

import asyncio
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from config import Settings
from database.embedded import STORES, EmbeddedServers, Store
from tests.chaos.schedule import APPS, AppName, Fault, Target
from tests.faults.lab import PROJECT, Lab, RawConnection, free_port, until
from tests.faults.proxy import Proxy, proxy_to
from tests.stores import environment, fresh_databases

PURGE_SECONDS = 7
"""Longer than anything hangs: nothing that was under way at a first pass may land after the second."""
START_PATIENCE, STOP_PATIENCE = 30, 5
LATE_MATCHES: dict[Store, bytes] = {"postgresql": b"COMMIT", "redis": b"EVALSHA", "mongodb": b"writeConcern"}
GATHERING_SECONDS = 0.5
"""How long what is to land late is collected."""
RESET_EVERY = 0.3
NEVER = 10**9


@dataclass
class AppProcess:
    """An app on a port of its own, which it keeps when it is started again."""

    name: AppName
    env: Mapping[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

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

    async def stop(self) -> None:
        if self.process and self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_PATIENCE)
            except TimeoutError:
                await self.kill()

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def is_live(self) -> bool:
        return await self.ask("/health/live", {}) is not None

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


class Arena:
    def __init__(self, lab: Lab, proxies: dict[Store, Proxy], apps: Sequence[AppProcess]) -> None:
        self.lab = lab
        self.proxies = proxies
        self.apps = apps
        self.suffered: list[Fault] = []
        self._struck: dict[Target, asyncio.Lock] = defaultdict(asyncio.Lock)
        """A server that was killed needs its time to start: what strikes it next waits."""
        self._windows: list[list[float]] = []

    @property
    def settings(self) -> Settings:
        """Of the servers themselves, without a proxy between."""
        return self.lab.settings

    def struck_between(self, start: float, end: float) -> bool:
        """Whether any fault was active at any time in between."""
        return any(begin <= end and start <= over for begin, over in reversed(self._windows[-40:]))

    def last_fault_ended_at(self) -> float:
        return max((over for _, over in self._windows), default=time.monotonic())

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
        async with self._struck[fault.target]:
            await self._strike_now(fault)

    async def _strike_now(self, fault: Fault) -> None:
        window = [time.monotonic(), float("inf")]
        self._windows.append(window)
        self.suffered.append(fault)
        if fault.target in APPS:
            await self._strike_app(fault, self.apps[APPS.index(fault.target)])
        else:
            await self._strike_store(fault, next(store for store in STORES if store == fault.target))
        window[1] = time.monotonic()

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
            await asyncio.sleep(RESET_EVERY)
        return app.process.returncode is not None

    async def _strike_store(self, fault: Fault, store: Store) -> None:
        proxy = self.proxies[store]
        if fault.kind in {"hang", "kill"}:
            async with self.lab.without(store, "stopped" if fault.kind == "hang" else "killed"):
                await asyncio.sleep(fault.seconds)
        elif fault.kind == "latency":
            proxy.latency = fault.amount / 2
            await asyncio.sleep(fault.seconds)
            proxy.latency = 0
        elif fault.kind == "reset":
            await self._reset_repeatedly(proxy, fault.seconds)
        elif fault.kind == "black hole":
            proxy.black_hole = True
            await asyncio.sleep(fault.seconds)
            proxy.black_hole = False
            proxy.reset()  # TCP never goes on after a gap
        else:
            proxy.hold(LATE_MATCHES[store])
            await asyncio.sleep(GATHERING_SECONDS)
            proxy.hold_no_more()
            await asyncio.sleep(max(0, fault.seconds - GATHERING_SECONDS))
            proxy.release()

    async def _reset_repeatedly(self, proxy: Proxy, seconds: float) -> None:
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            proxy.reset()
            await asyncio.sleep(RESET_EVERY)


@asynccontextmanager
async def arena_in(folder: Path, variant: str) -> AsyncIterator[Arena]:
    """Start everything, and stop it at the end. `variant` names the broken variant, or is empty."""
    embedded = EmbeddedServers(folder)
    servers = await asyncio.to_thread(embedded.start_all)
    try:
        async with AsyncExitStack() as exits:
            settings = await exits.enter_async_context(fresh_databases(servers))
            lab = Lab(embedded, servers, settings)
            proxies = {store: await exits.enter_async_context(proxy_to(servers[store].port)) for store in STORES}
            more = {"PYTHONPATH": str(PROJECT), "BREAK": variant, **_lab_settings()}
            env = environment(_behind(settings, lab, proxies), **more)
            arena = Arena(lab, proxies, [AppProcess(name, env, folder) for name in APPS])
            for app in arena.apps:
                exits.push_async_callback(app.stop)
            await asyncio.gather(*(app.start() for app in arena.apps))
            yield arena
    finally:
        for store in STORES:
            await asyncio.to_thread(embedded.stop, store)


def _lab_settings() -> dict[str, str]:
    return {"PURGE_SECONDS": str(PURGE_SECONDS), "ORDER_DEADLINE": "3", "ACCESS_LOG": "false", "LOG_LEVEL": "INFO"}


def _behind(settings: Settings, lab: Lab, proxies: Mapping[Store, Proxy]) -> Settings:
    values = settings.model_dump()
    names: dict[Store, str] = {"postgresql": "postgres_dsn", "redis": "redis_dsn", "mongodb": "mongodb_dsn"}
    for store, name in names.items():
        port = lab.servers[store].port
        values[name] = values[name].get_secret_value().replace(f":{port}", f":{proxies[store].port}")
    return Settings(_env_file=None, **values)
