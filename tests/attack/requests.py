"""Attacks by requests: too many, too large, too slow to read what they asked for."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import psutil

from config import Settings
from database.stores import open_stores
from tests.attack.target import CONVERSATIONS, SEND_SECONDS, SESSIONS, Headers, Row, Target, told
from tests.product.people import WRONG
from tests.product.things import start_conversation
from tests.product.unread import ask, fill
from tristore.http.unread import MOST_UNREAD, UNREAD_SECONDS
from tristore.testing.lab import RawConnection, until

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KILOBYTE, MEGABYTE = 2**10, 2**20
GUESSES = 180
ANSWERS, SWEEPS = 3, 5
"""An answer that waits is there as text, as bytes, and in part as what is sent next. The protocol looks once in a
second, and a busy machine is late."""
OTHER_HOST = "other.example"


def most_of(kind: str) -> int:
    [limit] = Settings(_env_file=None).rate_limits()[kind]
    return limit.amount


async def large_bodies(target: Target) -> list[Row]:
    """What takes long to refuse."""
    _, user = await target.join()
    keys = json.dumps({str(number): 1 for number in range(100_000)}).encode()
    numbers = json.dumps({"content": "c", "metadata": {"a": list(range(40_000))}}).encode()
    fewer = json.dumps({str(number): 1 for number in range(18_000)}).encode()
    conversation = await start_conversation(target.app.client, user)
    rows = []
    for what, path, body, status in [
        ("100,000 unknown keys in a registration", "/users/register", keys, 413),
        ("18,000 unknown keys in a conversation", "/conversations", fewer, 422),
        ("40,000 numbers in a message's metadata", f"{conversation}/messages", numbers, 422),
    ]:
        sizes: list[int] = []

        async def send(path: str = path, body: bytes = body, sizes: list[int] = sizes) -> str:
            answer = await target.app.client.post(path, headers=user | JSON, content=body, timeout=60)
            sizes.append(len(answer.content))
            return str(answer.status_code)

        answers = await target.by_all(send)
        held = {*answers} == {str(status)} and max(sizes) < 8 * KILOBYTE
        bound = f"all {status} in 8 KB"
        rows.append(Row(what, target.attackers, bound, f"{told(answers)}, largest {max(sizes)} bytes", held))
    return rows


async def guesses(target: Target) -> list[Row]:
    """At one account, from many addresses, while its owner signs in from home."""
    body, home = await target.join()
    form = f"username={body['username']}&password={WRONG}".encode()
    sign_in = ("POST", "/auth/token")
    guessing = asyncio.create_task(_many_times(target, GUESSES, sign_in, FORM, form, target.elsewhere))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await target.sign_in(body, {"X-Forwarded-For": home["X-Forwarded-For"]})
    seconds = time.monotonic() - started
    answers = await guessing
    most = most_of("sign_in_strangers")
    few = 0 < answers["401"] <= most
    return [
        Row("guesses at one account", target.attackers, f"at most {most} x 401", told(answers), few),
        Row("its owner's sign-in meanwhile", 1, "within 1 s", f"{seconds:.2f} s", seconds < 1, True),
    ]


async def floods(target: Target) -> list[Row]:
    """Of requests that nobody has signed in for."""
    made_up = {"Authorization": "Bearer " + "t" * 43}
    subnets = itertools.count()
    asked, sign_ins = most_of("anonymous"), most_of("sign_in_address")
    return [
        await _flood(target, "made-up tokens", ("GET", "/users/me"), made_up, "401", asked),
        await _flood(target, "readers of courses", ("GET", "/courses"), {}, "200", asked),
        await _flood(target, "sign-ins without a form", ("POST", "/auth/token"), FORM, "422", sign_ins),
        await _flood(
            target,
            "the same from a /56 of IPv6",  # it counts as four addresses
            ("POST", "/auth/token"),
            FORM,
            "422",
            4 * sign_ins,
            lambda: {"X-Forwarded-For": f"2001:db8:0:{next(subnets) % 256:x}::1"},
        ),
    ]


async def _flood(
    target: Target,
    what: str,
    route: tuple[str, str],
    headers: Headers,
    status: str,
    most: int,
    address: Callable[[], Headers] | None = None,
) -> Row:
    """From one address, if no other is given. `status`: the answer of those that are let through."""
    one = target.elsewhere()
    started = time.time()
    answers = await _many_times(target, most * 5 // 4, route, headers, b"", address or (lambda: one))
    windows = int(time.time() // 60 - started // 60) + 1
    held = 0 < answers[status] <= most * windows and {*answers} == {status, "429"}
    return Row(what, target.attackers, f"at most {most} x {status} a minute", told(answers), held)


async def _many_times(
    target: Target, times: int, route: tuple[str, str], headers: Headers, body: bytes, address: Callable[[], Headers]
) -> Counter[str]:
    """The same request so often, on a connection of each attacker."""
    left = itertools.repeat(None, times)
    answers: Counter[str] = Counter()

    async def attack() -> str:
        async with RawConnection.to(target.app) as connection:
            for _ in left:
                answer, _ = await connection.request(*route, headers | address(), body)
                answers[str(answer)] += 1
        return ""

    await target.by_all(attack)
    return answers


async def growth(target: Target) -> list[Row]:
    """Of what one user has."""
    body, user = await target.join()
    post = target.app.client.post

    async def start() -> str:
        return str((await post("/conversations", headers=user, json={"title": "t"})).status_code)

    started, more = await target.by_all(start), await target.by_all(start)
    for _ in range(2 * SESSIONS):
        newest = await target.sign_in(body, target.elsewhere())
    sessions = len((await target.app.client.get("/auth/sessions", headers=newest)).json()["items"])
    kept = (await target.app.client.get("/conversations", headers=newest)).json()["items"]
    newest_only, few = sessions == SESSIONS, len(kept) == 1 + started["201"] and {*more} == {"409"}
    of_all, to_all = f"{sessions} of {2 * SESSIONS + 1}", f"{len(kept)}, then {told(more)}"
    return [
        Row("sessions of a user", 1, f"the newest {SESSIONS}", of_all, newest_only),
        Row("conversations of a user", target.attackers, f"{CONVERSATIONS} and those under way", to_all, few),
    ]


async def unread_answers(target: Target) -> list[Row]:
    """Large ones, asked for by users who take nothing."""
    users = [(await target.join())[1] for _ in range(target.attackers)]
    pages = []
    async with open_stores(target.settings.model_copy(update={"mongodb_timeout": 30})) as stores:
        for user in users:
            pages.append(await start_conversation(target.app.client, user))
            await fill(stores, pages[-1])
    exports = ["/users/me/export"] * len(users)
    together = ANSWERS * MOST_UNREAD // MEGABYTE
    return [
        await _unread(target, "exports that nobody reads", users, exports, target.attackers, 12 * SEND_SECONDS),
        await _unread(
            target,
            "pages that nobody reads",
            users,
            [f"{page}/messages?limit=100" for page in pages],
            together,
            UNREAD_SECONDS + SWEEPS,
        ),
    ]


async def _unread(
    target: Target, what: str, users: list[Headers], paths: list[str], megabytes: int, seconds: float
) -> Row:
    """`megabytes`: what it may take, all together, until those who ask are cut off, within `seconds`."""
    process = psutil.Process(target.app.process.pid)
    before = most = process.memory_info().rss
    with ExitStack() as exits:
        asked = [ask(exits, target.app.client.base_url, user, path) for user, path in zip(users, paths, strict=True)]
        ports = {(await socket).getsockname()[1] for socket in asked}

        async def are_cut_off() -> bool:
            nonlocal most
            most = max(most, process.memory_info().rss)
            peers = {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}
            return not ports & peers

        took = await until(are_cut_off, seconds)
    grown = (most - before) // MEGABYTE
    return Row(what, target.attackers, f"{megabytes} MB, cut off", f"{grown} MB, {took:.0f} s", grown <= megabytes)


async def hosts(target: Target) -> list[Row]:
    """A host that a client made up, in what others may keep or follow."""
    routes = ["/courses", "/health/live", "/nowhere", "/courses/", "/docs", "/users/me"]

    async def ask_all() -> str:
        answers = [await target.app.client.get(path, headers={"Host": OTHER_HOST}) for path in routes]
        texts = [f"{answer.headers} {answer.text}" for answer in answers]
        return "told" if any(OTHER_HOST in text for text in texts) else "not told"

    answers = await target.by_all(ask_all)
    return [Row("a made-up Host", target.attackers, "in no answer", told(answers), {*answers} == {"not told"})]
