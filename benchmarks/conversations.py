"""Rows of `make bench` about conversations: what a message costs, and what reading them costs."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.comparison import BARE, RAW, SPARED, WIRING, Bar, Contestant
from benchmarks.load import Request
from benchmarks.users import CONTENT, User, add_conversations, add_messages, add_users
from tristore.stores.stores import open_stores

if TYPE_CHECKING:
    from benchmarks.bench import Bench

BODY = json.dumps({"content": CONTENT}, ensure_ascii=False)
WRITERS = 32

Least = Mapping[str, float]
"""By contestant: the rate that the app must have of its."""


@dataclass(frozen=True)
class Work:
    """One question to each contestant."""

    app: Callable[[User], Request]
    wiring: Callable[[User], Request]
    raw: Callable[[User], Request]
    before_wiring: Callable[[], Awaitable[None]] | None = None


async def messages(bench: "Bench") -> None:
    """Hot: each connection writes into a conversation of its own. Cold: into any of ten thousand, as people do."""

    async def empty_arrays() -> None:
        """They would grow, and each message cost more than the one before."""
        async with open_stores(bench.lab.settings.model_copy(update={"mongodb_timeout": 60})) as stores:
            await stores.mongodb.database.chats.update_many({}, {"$set": {"messages": []}})

    work, hot = Work(_post, _post, _post_raw, empty_arrays), bench.users[:WRITERS]
    await _compare(bench, "POST a message, hot", work, hot, {WIRING: 1.9, RAW: 0.9})
    await _compare(bench, "POST a message, cold", work, None, {WIRING: 1.6})
    await _compare(bench, "POST a message, 32 writers in one conversation", work, hot[:1], {WIRING: 2})
    two = "POST a message, 32 writers in one conversation, two processes"
    await _compare(bench, two, work, hot[:1], {WIRING: 1}, two=True)
    await _compare(bench, "POST a message, one connection", work, hot[:1], {WIRING: 0.91}, connections=1)


async def conversations(bench: "Bench") -> None:
    few, many = bench.size.conversation
    settings = bench.lab.settings.model_copy(update={"mongodb_timeout": 60})
    readers, one = await add_users(settings, WRITERS), await add_users(settings, 1)
    owners = {count: await add_users(settings, 1) for count in (few, many)}
    async with open_stores(settings) as stores:
        for users, count in ((readers, few), (one, many)):
            for user in users:
                await add_messages(stores.mongodb.database, str(user.conversation_id), count)
        for count, users in owners.items():
            await add_conversations(stores.mongodb.database, users[0], count - 1)
    read = Work(_read, _read, _read_raw)
    await _compare(bench, f"GET a conversation of {few} messages", read, readers, {WIRING: 0.83})
    alone = f"GET a conversation of {few} messages, one connection"
    await _compare(bench, alone, read, readers[:1], {WIRING: 0.71}, connections=1)
    await _compare(bench, f"GET a conversation of {many} messages", read, one, {WIRING: 10}, connections=4)
    for (count, users), least in zip(owners.items(), (3.3, 20), strict=True):
        work = Work(_list, _list_of, _list_of)
        await _compare(bench, f"GET 20 of {count} conversations", work, users, {WIRING: least}, connections=4)


async def _compare(
    bench: "Bench",
    what: str,
    work: Work,
    users: Sequence[User] | None,
    least: Least,
    connections: int = WRITERS,
    *,
    two: bool = False,
) -> None:
    """`users`: whose requests come in turn, None for all of them, drawn uniformly. `two`: of two processes each, and
    only of those that can share the work."""
    sessions = bench.requests(f"{what}, sessions", lambda user: Request("/users/me", user.token), users or bench.users)
    fixed = bench.requests("fixed", lambda user: Request("/health/live"), bench.users[:1])

    def contestant(who: str, server: str, of_one: Callable[[User], Request] | None) -> Contestant:
        ours = who == "app"
        return Contestant(
            bench.apps[server],
            bench.requests(f"{what}, {who}", of_one, users) if of_one else fixed,
            connections,
            warm=sessions if ours else None,
            prepare=bench.fill_caches if ours and users is None else work.before_wiring if who == WIRING else None,
            ours=ours,
            second=bench.apps[f"second {server}"] if two else None,
        )

    contestants = {"app": contestant("app", "app", work.app), WIRING: contestant(WIRING, WIRING, work.wiring)}
    if not two:
        ceilings = f"ceilings{SPARED}"
        contestants |= {RAW: contestant(RAW, ceilings, work.raw), BARE: contestant(BARE, ceilings, None)}
    bars = [Bar("app", who, rate) for who, rate in least.items()]
    await bench.compare.run(what, contestants, [who for who in contestants if who != "app"], bars)


def _post(user: User) -> Request:
    return Request(f"/conversations/{user.conversation_id}/messages", user.token, BODY)


def _post_raw(user: User) -> Request:
    return Request(f"/users/{user.id}{_post(user).path}", body=BODY)


def _read(user: User) -> Request:
    return Request(f"/conversations/{user.conversation_id}", user.token)


def _read_raw(user: User) -> Request:
    return Request(f"/users/{user.id}{_read(user).path}")


def _list(user: User) -> Request:
    return Request("/conversations", user.token)


def _list_of(user: User) -> Request:
    return Request(f"/users/{user.id}/conversations")
