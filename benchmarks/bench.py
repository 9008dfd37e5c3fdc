"""Question: how much of what FastAPI and the drivers can do is left of a request, and what does the straightforward
wiring leave? Run: `make bench` (SMOKE=1: under a minute, for its errors alone; ARGS="profiles health": only these).

Method: embedded servers of its own; one uvicorn process each for the app as shipped, its variants, the ceilings and the
straightforward wiring; wrk sends on 32 connections, the servers alone on one core where there are two. Contestants take
turns, round after round. "Good" are answers below 400; CPU is the server process's time for one request. The exit
status is 1 when the app made an error; figures do not change it.
"""

import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from benchmarks.comparison import (
    BARE,
    HASH,
    RAW,
    RAW_ROW,
    REDIS_GET,
    SPARED,
    WIRING,
    Bar,
    Comparisons,
    Contestant,
    load_some,
    ratios_of,
    send,
)
from benchmarks.conversations import conversations, messages
from benchmarks.load import OTHER_CORES, SERVER_CORES, Request, load, pin, require_wrk, write_requests
from benchmarks.users import User, add_users, draw, fill_caches
from tests.under_test import Lab, own_lab
from tristore.embedded.servers import STORES, EmbeddedServers
from tristore.embedded.servers import Server as Served
from tristore.models import now
from tristore.ops.serve import PROTOCOL
from tristore.stores.stores import Stores, open_stores
from tristore.testing import log_of_run
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import PROJECT, App, answers, free_port, until

PLACE = "#" * 12
"""Where wrk.lua puts the number of the request."""
NOBODY = "redis://127.0.0.1:1"
REST = 2
"""Seconds after which what a load has left behind is done, on the core that all servers share: registrations to hash,
probes for those who have left. Beside the next contestant's load it would be a fifth of the core."""
QUIET = {"LOG_LEVEL": "WARNING", "ACCESS_LOG": "false"}
OTHERS = ("benchmarks.ceilings", "benchmarks.straightforward")
"""These have uvicorn's own protocol; the app has the one that it ships with."""
PACKAGES = "fastapi starlette uvicorn uvloop httptools sqlalchemy asyncpg redis hiredis motor pymongo pydantic".split()


@dataclass(frozen=True)
class Size:
    users: int = 10_000
    rounds: int = 9
    seconds: int = 2
    """Short and many, because a machine's speed changes within seconds; and what was read from Redis stays near for
    13 s, of which a slow machine takes most to warm ten thousand sessions."""
    crowds: tuple[int, ...] = (256, 1000)
    memory: tuple[int, int] = (20_000, 200_000)
    shapes: tuple[str, ...] = ("uniform", "Zipf")
    conversation: tuple[int, int] = (20, 10_000)
    """Messages of a conversation, and conversations of a user."""
    together: bool = False
    """Whether contestants send at the same time: quicker, and good for nothing but finding errors."""


SMOKE = Size(
    50,
    rounds=1,
    seconds=1,
    crowds=(256,),
    memory=(500, 1000),
    shapes=("uniform",),
    conversation=(20, 100),
    together=True,
)


@dataclass(frozen=True)
class Bench:
    size: Size
    lab: Lab
    apps: dict[str, App]
    users: list[User]
    folder: Path
    compare: Comparisons

    def requests(self, name: str, of_one: Callable[[User], Request], users: Iterable[User] | None = None) -> Path:
        """A file of requests, drawn uniformly unless `users` says otherwise."""
        return write_requests(self.folder / name, map(of_one, draw(self.users) if users is None else users))

    async def fill_caches(self) -> None:
        """Loading ten thousand sessions takes about as long as their copies live, so it would never be warm."""
        await fill_caches(self.lab.settings, self.users)


@dataclass(frozen=True)
class Server:
    """An app process: what uvicorn serves, and in which environment."""

    name: str
    module: str = "main:app"
    environment: tuple[tuple[str, str], ...] = ()


SERVERS = (
    Server("app"),
    Server("second app"),
    Server("near cache off", environment=(("NEAR_CACHE", "false"),)),
    Server("Redis off", environment=(("REDIS_DSN", NOBODY),)),
    Server("trivial hashing", "benchmarks.trivial_hashing:app"),
    Server("ceilings", "benchmarks.ceilings:app"),
    Server(f"ceilings{SPARED}", "benchmarks.ceilings:app", (("SPARED", "yes"),)),
    Server(WIRING, "benchmarks.straightforward:app"),
    Server(f"second {WIRING}", "benchmarks.straightforward:app"),
    Server("straightforward, less", "benchmarks.straightforward:app", (("CACHED", "no"), ("HASHED", "no"))),
)


def main(size: Size, chosen: list[str]) -> bool:
    known = [row.__name__ for row in ROWS]
    if not set(chosen) <= set(known):
        sys.exit(f"ARGS must be some of {', '.join(known)}")
    require_wrk()
    _allow_many_files()
    compare = Comparisons(size.rounds, size.seconds, size.together)
    with guarded_folder("tristore-bench-") as folder:
        asyncio.run(measure(folder, size, compare, [row for row in ROWS if not chosen or row.__name__ in chosen]))
    file = Path(os.environ.get("BENCH_JSON", PROJECT / ".data" / "bench.json"))
    file.parent.mkdir(exist_ok=True)
    result = {"size": asdict(size), **circumstances(), "facts": compare.facts, "runs": compare.runs}
    file.write_text(json.dumps(result, indent=1))
    print(f"\n{compare.errors} errors of the app. All figures: {file}")
    return not compare.errors


async def measure(folder: Path, size: Size, compare: Comparisons, rows: Iterable["Row"]) -> None:
    log_of_run.keep_in(folder / "apps.log")
    embedded = EmbeddedServers(folder)
    await count_statements(embedded.start("postgresql"))
    embedded.stop("postgresql")
    async with own_lab(folder) as lab, AsyncExitStack() as exits:
        for pid in [os.getpid(), *(pid for store in STORES for pid in embedded.pids(store))]:
            pin(pid, OTHER_CORES)
        users = await add_users(lab.settings, size.users)
        apps = {server.name: await exits.enter_async_context(serving(lab, server)) for server in SERVERS}
        bench = Bench(size, lab, apps, users, folder, compare)
        for row in rows:
            await row(bench)


async def count_statements(postgres: Served) -> None:
    # The template of all databases that come: the app's role may not make the extension.
    dsn = postgres.administrator_dsn.replace("+asyncpg", "")
    connection = await asyncpg.connect(dsn, database="template1")
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await connection.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
    await connection.close()


@asynccontextmanager
async def serving(lab: Lab, server: Server) -> AsyncIterator[App]:
    uvicorn = ("uvicorn", "--app-dir", str(PROJECT), server.module, "--no-access-log", "--log-level", "warning")
    http = "httptools" if server.module.startswith(OTHERS) else PROTOCOL
    # A request of another contestant may wait for ever, once its pool was empty: its process must end all the same.
    ends = ("--timeout-graceful-shutdown", "10")
    how = ("--loop", os.environ.get("LOOP") or "auto", "--http", http, "--timeout-keep-alive", "75", *ends)
    async with lab.running(*uvicorn, *how, "--port", **QUIET, **dict(server.environment)) as app:
        pin(app.process.pid, SERVER_CORES)
        yield app


async def profiles(bench: Bench) -> None:
    apps, users = bench.apps, bench.users
    ceilings, spared = apps["ceilings"], apps[f"ceilings{SPARED}"]
    all_mine = bench.requests("all mine", _me, users)
    all_by_id = bench.requests("all by id", _by_id, users)
    fixed = bench.requests("fixed", lambda user: Request("/health/live"), users[:1])
    for shape in bench.size.shapes:
        drawn = draw(users, zipf=shape == "Zipf")
        mine = bench.requests(f"mine {shape}", _me, drawn)
        by_id = bench.requests(f"by id {shape}", _by_id, drawn)
        gets = bench.requests(f"gets {shape}", lambda user: Request("/redis", user.token), drawn)
        await bench.compare.run(
            f"GET /users/me, warm, {shape}",
            {
                "app": Contestant(apps["app"], mine, warm=all_mine, prepare=bench.fill_caches, ours=True),
                BARE: Contestant(ceilings, fixed),
                REDIS_GET: Contestant(ceilings, gets),
                BARE + SPARED: Contestant(spared, fixed),
                REDIS_GET + SPARED: Contestant(spared, gets),
                "near cache off": Contestant(
                    apps["near cache off"], mine, warm=all_mine, prepare=bench.fill_caches, ours=True
                ),
                WIRING: Contestant(apps[WIRING], by_id, warm=all_by_id),
            },
            against=(BARE, REDIS_GET, BARE + SPARED, REDIS_GET + SPARED, WIRING),
            bars=(Bar("app", BARE, 0.55), Bar("app", REDIS_GET, 1.3), Bar("near cache off", REDIS_GET, 0.85)),
        )


async def without_redis(bench: Bench) -> None:
    """The sessions were seen within the last minute: noting that is a write, at most one a minute for each."""
    async with open_stores(bench.lab.settings) as stores:
        await query(stores, "UPDATE sessions SET last_seen_at = now()")
    mine, by_id, rows = bench.requests("mine", _me), bench.requests("by id", _by_id), bench.requests("rows", _row)
    some = bench.users[:200]  # to connect and compile
    few = bench.requests("few", _me, some)
    few_by_id, rows_of_few = bench.requests("few by id", _by_id, some), bench.requests("rows of few", _row, some)
    await bench.compare.run(
        "GET /users/me, Redis off",
        {
            "app": Contestant(bench.apps["Redis off"], mine, warm=few, ours=True),
            RAW_ROW: Contestant(bench.apps["ceilings"], rows, warm=rows_of_few),
            RAW_ROW + SPARED: Contestant(bench.apps[f"ceilings{SPARED}"], rows, warm=rows_of_few),
            WIRING: Contestant(bench.apps["straightforward, less"], by_id, warm=few_by_id),
        },
        against=(RAW_ROW, RAW_ROW + SPARED, WIRING),
        bars=(Bar("app", RAW_ROW, 0.6),),
    )


async def registration(bench: Bench) -> None:
    body = {"username": f"u{PLACE}", "email": f"{PLACE}@example.com", "password": "correct horse 9"}
    wanted = write_requests(bench.folder / "register", [Request("/users/register", body=json.dumps(body))])
    raw_wanted = write_requests(bench.folder / "register raw", [Request("/register", body=json.dumps(body))])
    to_hash = write_requests(bench.folder / "hash", [Request("/hash", body=json.dumps(body))])
    runs = await bench.compare.run(
        "POST /users/register",
        {
            "app": Contestant(bench.apps["app"], wanted, prepare=rest, ours=True),
            HASH: Contestant(bench.apps["ceilings"], to_hash, prepare=rest),
            WIRING: Contestant(bench.apps[WIRING], wanted, prepare=rest),
        },
        against=(HASH, WIRING),
    )
    of_hashing = ratios_of(runs["app"], runs[HASH])[1]
    bench.compare.judge("POST /users/register: processor time of only hashing, of the app's", of_hashing, 0.75)
    await bench.compare.run(
        "POST /users/register, trivial hashing",
        {
            "app": Contestant(bench.apps["trivial hashing"], wanted, ours=True),
            RAW: Contestant(bench.apps["ceilings"], raw_wanted),
            WIRING: Contestant(bench.apps["straightforward, less"], wanted),
        },
        against=(RAW, WIRING),
        bars=(Bar("app", RAW, 0.35),),
    )


async def health(bench: Bench) -> None:
    check = bench.requests("health", lambda user: Request("/health"), bench.users[:1])
    fixed = bench.requests("fixed", lambda user: Request("/health/live"), bench.users[:1])
    app = bench.apps["app"]
    # For so long that the processes' own heartbeats through Redis, a script like the probe, fall into both parts.
    seconds = 1 if bench.size.together else 10
    async with open_stores(bench.lab.settings) as stores:
        idle = await probes_during(stores, asyncio.sleep(seconds))
        busy = await probes_during(stores, load(app, check, seconds, 200))
    for store in STORES:
        seen = max(0, busy[store] - idle[store]) / seconds
        bench.compare.fact(f"Probes a second that {store} sees", round(seen, 1), "at most 2", met=seen <= 2)
    await bench.compare.run(
        "GET /health, 200 connections",
        {
            "app": Contestant(app, check, connections=200, warm=check, prepare=rest, ours=True),
            BARE: Contestant(bench.apps["ceilings"], fixed, connections=200, prepare=rest),
            BARE + SPARED: Contestant(bench.apps[f"ceilings{SPARED}"], fixed, connections=200, prepare=rest),
            WIRING: Contestant(bench.apps[WIRING], check, connections=200, prepare=rest),
        },
        against=(BARE, BARE + SPARED, WIRING),
        bars=(Bar("app", BARE, 0.75),),
    )


async def rest() -> None:
    await asyncio.sleep(REST)


async def probes_during(stores: Stores, action: Awaitable[object]) -> dict[str, int]:
    before = await probes(stores)
    await action
    return {store: count - before[store] for store, count in (await probes(stores)).items()}


async def probes(stores: Stores) -> dict[str, int]:
    """How often each store was asked what the app's probes ask, by whomever."""
    commands = await stores.redis.client.info("commandstats")
    status = await stores.mongodb.probe.admin.command("serverStatus")
    return {
        "postgresql": await calls(stores, "SELECT current_setting%"),
        "redis": commands.get("cmdstat_evalsha", {}).get("calls", 0),
        "mongodb": status["metrics"]["commands"]["update"]["total"],
    }


async def first_reads(bench: Bench) -> None:
    """Of one user, by a thousand at once, half of them in each of two processes."""
    crowd = bench.size.crowds[-1] // 2
    newcomers = await add_users(bench.lab.settings, bench.compare.rounds)
    apps = [bench.apps["app"], bench.apps["second app"]]
    async with open_stores(bench.lab.settings) as stores:
        for newcomer in newcomers:
            mine = bench.requests("newcomer", _me, [newcomer])
            before = [await calls(stores, pattern) for pattern in LOADS]
            runs = await asyncio.gather(*(load_some(app, mine, 1, crowd) for app in apps))
            loads = [await calls(stores, LOADS[i]) - before[i] for i in range(len(LOADS))]
            what = f"Loads of one profile, of one session, for {2 * crowd} concurrent first reads in two processes"
            bench.compare.fact(what, loads, "at most 2 each", met=max(loads) <= 2)
            errors = sum(run.errors for run in runs)
            bench.compare.errors += errors
            bench.compare.fact("Errors, and 503 among them", [errors, sum(run.refused for run in runs)])


LOADS = ("SELECT%FROM%profiles%WHERE%", "WITH noted%")


async def crowds(bench: Bench) -> None:
    """A joined statement that reads session and profile counts as one of each."""
    apps, mine, by_id = bench.apps, bench.requests("mine", _me), bench.requests("by id", _by_id)
    all_mine = bench.requests("all mine", _me, bench.users)
    counts = (32, *bench.size.crowds)
    for name, app, warm in (("app", apps["app"], all_mine), ("Redis off", apps["Redis off"], None)):
        prepare = bench.fill_caches if warm else rest
        contestants = {f"{n} connections": Contestant(app, mine, n, warm, prepare, ours=True) for n in counts}
        bars = [Bar(f"{n} connections", "32 connections", 0.9) for n in counts[1:]]
        await bench.compare.run(f"GET /users/me, {name}, crowded", contestants, ("32 connections",), bars)
    fixed = bench.requests("fixed", lambda user: Request("/health/live"), bench.users[:1])
    plain, spared = apps["ceilings"], apps[f"ceilings{SPARED}"]
    for name, app, requests in ((BARE, plain, fixed), (BARE + SPARED, spared, fixed), (WIRING, apps[WIRING], by_id)):
        contestants = {f"{n} connections": Contestant(app, requests, n, prepare=rest) for n in counts}
        await bench.compare.run(f"{name}, crowded", contestants, ("32 connections",))


async def memory(bench: Bench) -> None:
    """Of so many users that each has come several times among the first requests: what grows then is not the cache."""
    mine = bench.requests("mine", _me, draw(bench.users[: len(bench.users) // 5]))
    few, many = bench.size.memory
    async with serving(bench.lab, Server("fresh")) as app:
        process = psutil.Process(app.process.pid)
        idle = process.memory_info().rss / 2**20
        bench.compare.fact("Memory of the idle process, MB", round(idle), "below 150", met=idle < 150)
        await send(app, mine, few)
        after_few = process.memory_info().rss
        started = time.monotonic()
        sent = await send(app, mine, many - few)
        growth = process.memory_info().rss / after_few - 1
        what = f"Growth of memory from {few} requests to {many}"
        bench.compare.fact(what, f"{growth:.1%}", "at most 5 %", met=growth <= 0.05)
        bench.compare.fact("Requests a second meanwhile", round(sent / (time.monotonic() - started)))


async def start(bench: Bench) -> None:
    """`make run`, installed: with an empty data folder, and again with what the first left there."""
    for which in ("first", "second"):
        took = await seconds_to_ready(bench.folder / "run")
        bench.compare.fact(f"Seconds of the {which} `make run` to ready", round(took, 1), "at most 5", met=took <= 5)


async def seconds_to_ready(data: Path) -> float:
    port = free_port()
    mine = {"DATA_DIR": str(data), "PORT": str(port), "POSTGRES_DSN": "", "REDIS_DSN": "", "MONGODB_DSN": ""}
    process = await asyncio.create_subprocess_exec(
        *("make", "-s", "run"), cwd=PROJECT, env={**os.environ, **mine, **QUIET}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            return await until(lambda: answers(client, "/health/ready"), 60)
    finally:
        process.terminate()
        await process.wait()


Row = Callable[[Bench], Awaitable[None]]
ROWS: tuple[Row, ...] = (
    profiles,
    without_redis,
    registration,
    messages,
    conversations,
    health,
    first_reads,
    crowds,
    memory,
    start,
)


def _me(user: User) -> Request:
    return Request("/users/me", user.token)


def _by_id(user: User) -> Request:
    return Request(f"/users/{user.id}")


def _row(user: User) -> Request:
    return Request(f"/row/{user.id}")


async def query(stores: Stores, statement: str, *values: object) -> Any:
    """The first value of the answer."""
    connection = await stores.postgres.engine.raw_connection()
    driver: Any = connection.driver_connection
    try:
        return await driver.fetchval(statement, *values)
    finally:
        connection.close()


async def calls(stores: Stores, pattern: str) -> int:
    count = "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query LIKE $1"
    return int(await query(stores, count, pattern))


def circumstances() -> dict[str, Any]:
    """Where and of what the figures are."""
    return {
        "at": now().isoformat(),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since": _git("status", "--porcelain").splitlines(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
            "system": platform.platform(),
            "load": os.getloadavg(),
        },
        "loop": os.environ.get("LOOP") or "auto",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _git(*words: str) -> str:
    return subprocess.run(("git", *words), cwd=PROJECT, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))


if __name__ == "__main__":
    good = main(SMOKE if os.environ.get("SMOKE") else Size(), sys.argv[1:])
    sys.exit(not good)
