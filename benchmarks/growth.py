"""Question: does a request cost more as the data grows? Run: `make bench-growth` (SMOKE=1: for its errors alone).

Method: embedded servers of its own; the app and the straightforward wiring on them; wrk sends on one connection, so the
time of one request is what is measured. The sizes of one question take turns, round after round. Then it tells the
bytes of a document. Backlogs are measured by `make bench-outbox`. What is printed last are the plots of
docs/performance.md.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.bench import Server, serving
from benchmarks.comparison import WIRING, Comparisons, Contestant, median
from benchmarks.load import Request, require_wrk, write_requests
from benchmarks.users import CONTENT, MOST_INSIDE, User, add_conversations, add_messages, add_users
from config import Settings
from tests.under_test import own_lab
from tristore.stores.stores import open_stores
from tristore.testing import log_of_run
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import App

SMOKE = bool(os.environ.get("SMOKE"))
MESSAGES = (0, 20, 1_000) if SMOKE else (0, 20, 1_000, 10_000, 100_000)
CONVERSATIONS = (10, 20, 100) if SMOKE else (10, 20, 1_000, 10_000)
ROUNDS, SECONDS = (1, 1) if SMOKE else (5, 2)
AT_MOST = 1.15
"""What the largest size may cost of the smallest."""
BODY = json.dumps({"content": CONTENT}, ensure_ascii=False)
Owners = Mapping[int, Sequence[User]]
"""By size: whose conversations have so many messages, or who has so many conversations."""


async def main(folder: Path, compare: Comparisons) -> None:
    log_of_run.keep_in(folder / "apps.log")
    async with own_lab(folder) as lab, AsyncExitStack() as exits:
        # Several where they are small: what is appended while it is measured must not make them large.
        talkers = {size: await add_users(lab.settings, max(1, 5_000 // max(size, 25))) for size in MESSAGES}
        owners = {size: await add_users(lab.settings, 1) for size in CONVERSATIONS}
        await add_documents(lab.settings, talkers, owners)
        wiring = Server(WIRING, "benchmarks.straightforward:app")
        apps = [await exits.enter_async_context(serving(lab, server)) for server in (Server("app"), wiring)]

        async def grow(what: str, users: Owners, least: int, *requests: Callable[[User], Request]) -> str:
            return await measure(compare, folder, what, users, least, dict(zip(apps, requests, strict=True)))

        plots = [
            await grow("Read the last 20 messages", talkers, 20, _read, _read),
            await grow("Append a message", talkers, 0, _append, _append),
            await grow("List 20 conversations", owners, 20, _list, _list_of),
        ]
        await tell_sizes(lab.settings, compare)
        print("", *plots, sep="\n")


async def measure(
    compare: Comparisons,
    folder: Path,
    what: str,
    users: Owners,
    least: int,
    requests: Mapping[App, Callable[[User], Request]],
) -> str:
    """Compares with the size of `least`: where there is less, there is less to answer. Returns the plot."""
    curves = []
    for app, request in requests.items():
        ours = app is next(iter(requests))
        contestants = {}
        for size, of_size in users.items():
            if not ours and size > MOST_INSIDE:
                continue
            name = f"{what} {size} {'app' if ours else WIRING}"
            wanted = write_requests(folder / name, map(request, of_size))
            sessions = write_requests(folder / f"{name} sessions", map(_me, of_size)) if ours else None
            contestants[f"{size:,}"] = Contestant(app, wanted, 1, warm=sessions, ours=ours)
        runs = await compare.run(f"{what}, {'app' if ours else WIRING}", contestants)
        times = {size: median(of_size, lambda run: 1000 / max(run.rate, 1)) for size, of_size in runs.items()}
        curves.append(times)
        if ours:
            most = max(users)
            ratio = round(times[f"{most:,}"] / times[f"{least:,}"], 2)
            compare.fact(f"{what}: {most:,} of {least:,}", ratio, f"at most {AT_MOST}", met=ratio <= AT_MOST)
    return plot(what, curves)


def plot(what: str, curves: Sequence[Mapping[str, float]]) -> str:
    """For Mermaid: the app's curve first, then the straightforward wiring's if there is one."""
    sizes = ", ".join(f'"{size}"' for size in curves[0])
    lines = [f"  line [{', '.join(f'{ms:.2f}' for ms in curve.values())}]" for curve in curves]
    return "\n".join(["xychart-beta", f'  title "{what}"', f"  x-axis [{sizes}]", '  y-axis "ms"', *lines])


async def add_documents(settings: Settings, talkers: Owners, owners: Owners) -> None:
    async with open_stores(settings.model_copy(update={"mongodb_timeout": 60})) as stores:
        database = stores.mongodb.database
        for size, users in talkers.items():
            for user in users:
                await add_messages(database, str(user.conversation_id), size)
        for size, users in owners.items():
            for user in users:
                await add_conversations(database, user, size - 1)


async def tell_sizes(settings: Settings, compare: Comparisons) -> None:
    """What a document takes. Its indexes are compressed, and so is the file, which has one text again and again."""
    async with open_stores(settings) as stores:
        for name in ("messages", "conversations"):
            told = await stores.mongodb.database.command("collStats", name)
            each = {of: round(told[of] / told["count"]) for of in ("size", "totalIndexSize", "storageSize")}
            compare.fact(f"Bytes of a document in {name}, {told['count']:,} of them", each)


def _me(user: User) -> Request:
    return Request("/users/me", user.token)


def _read(user: User) -> Request:
    return Request(f"/conversations/{user.conversation_id}", user.token)


def _append(user: User) -> Request:
    return Request(f"/conversations/{user.conversation_id}/messages", user.token, BODY)


def _list(user: User) -> Request:
    return Request("/conversations", user.token)


def _list_of(user: User) -> Request:
    return Request(f"/users/{user.id}/conversations")


if __name__ == "__main__":
    require_wrk()
    comparisons = Comparisons(ROUNDS, SECONDS, together=False)
    with guarded_folder("tristore-bench-") as data:
        asyncio.run(main(data, comparisons))
    sys.exit(bool(comparisons.errors))
