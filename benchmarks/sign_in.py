"""Questions: does the time of a refused sign-in tell whether the user exists? Does that of a request for a new
password, or of a private registration, tell whether the address is known? How long does the event loop stall while 40
sign-ins run at once? Run: `make bench-sign-in` (ARGS=20 for a quick look: attempts of each kind; ARGS="600 resets" for
these alone: sign-ins, first, resets, registrations, stalls).

Method: embedded servers and app processes of its own; this process sends the requests, over plain connections.
1. Wrong passwords for existing and for unknown names and emails of one length, in random order, one at a time. "Slower"
   is the share of pairs in which the existing one took longer (0.5: nothing to tell them apart by), with a bootstrapped
   95 % interval. Then the same as the very first sign-in of fresh processes. Then requests for a new password, and
   registrations with REGISTRATION_PRIVACY, of known and unknown addresses, each as often as the other, while the relay
   of the same process mails.
2. 40 requests at once, each over its own connection, in several rounds. A task in the app's loop sleeps 1 ms at a time
   and notes how late it wakes up: because the loop's thread was computing, or because that thread waited for a core or
   for the interpreter's lock. The 99th percentile is over moments: a stall of 20 ms counts 20 times. "Stolen" is the
   share of the cores that the machine's host took, "then" the milliseconds of it, known to 10, in the round of the
   worst stall. Contrasts in the same run: nothing sent; 40 requests that hash nothing; 40 threads, as anyio's default
   limiter would give.
"""

import asyncio
import bisect
import json
import os
import random
import statistics
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.under_test import Lab, own_lab
from tristore.testing import log_of_run
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import App, percentile

AT_ONCE = 40
APART = 0.005
"""Seconds. Nearly all of 40 sign-ins that come so soon after each other still wait for their hash together."""
LIMIT = 20
"""Milliseconds: in so many rounds the worst stall took longer."""
PASSWORD = "correct horse 9"
KINDS = ("existing name", "unknown name", "existing email", "unknown email")
QUIET = {"LOG_LEVEL": "ERROR"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
BINS = 16
EMAILS = KINDS[2:]
Times = dict[str, list[float]]
Ask = Callable[[HTTPConnection, str, int], None]
"""Sends the request of a kind and a number, and reads its answer."""
Seen = dict[str, Any]
Send = Callable[[HTTPConnection, int], None]


async def main(attempts: int, rows: Sequence[str]) -> None:
    with guarded_folder("tristore-bench-") as folder:
        log_of_run.keep_in(folder / "apps.log")
        async with own_lab(folder) as lab:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
            await register_all(lab)
            for row in rows or ROWS:
                await ROWS[row](lab, attempts)
            print(f"\nLoad {os.getloadavg()[0]:.1f} after")


async def register_all(lab: Lab) -> None:
    async with lab.app(**QUIET) as app:
        connection = connect(app)
        for number in range(AT_ONCE):
            register(connection, number)


async def compare_times(lab: Lab, attempts: int) -> None:
    async with lab.app(**QUIET) as app:
        times = asked(connect(app), refuse, KINDS, attempts)
    print_compared("Refused sign-ins", times)
    print_histogram(times)


async def compare_first_times(lab: Lab, attempts: int) -> None:
    times: Times = defaultdict(list)
    for kind in ["existing name", "unknown name"] * few(attempts):
        async with lab.app(**QUIET) as app:
            times[kind].append(timed(connect(app), refuse, kind, len(times[kind])))
    print("\nThe first sign-in of a process, ms")
    print_times(times)


async def compare_resets(lab: Lab, attempts: int) -> None:
    await compare_private_times(lab, "Requests for a new password", ask_reset, attempts)


async def compare_registrations(lab: Lab, attempts: int) -> None:
    await compare_private_times(lab, "Private registrations", register_privately, attempts)


async def compare_private_times(lab: Lab, title: str, ask: Ask, attempts: int) -> None:
    """Mails are counted as in production, and nobody comes to the limit: above it, less is done for any address."""
    mailing = {"ENVIRONMENT": "local", "DATA_DIR": str(lab.folder / "mailing"), "RATE_LIMIT_MAIL": "1000000/hour"}
    async with lab.app(**QUIET, **mailing, REGISTRATION_PRIVACY="true") as app:
        print_compared(title, asked(connect(app), ask, EMAILS, attempts))


async def measure_stalls(lab: Lab, attempts: int) -> None:
    rounds = few(attempts)
    async with lab.running("benchmarks.probed_app", **QUIET) as app:
        connections = [connect(app) for _ in range(AT_ONCE)]
        for _ in range(3):
            at_once(connections, sign_in)  # opens the pools, and compiles what is compiled when it is first needed
        tokens = [token_of(connection, number) for number, connection in enumerate(connections)]
        threads = ask_probe(connections[0])["threads"]
        print(f"\nHow late the loop is while {AT_ONCE} requests run at once, {rounds} rounds, ms")
        print(
            f"{'':<34} {'worst':>6} {'over 20':>8} {'computing':>10} {'waiting':>8} {'p99':>6} {'GC':>5} "
            f"{'all took':>9} {'503':>4} {'stolen':>7} {'then':>5}"
        )

        def watch(name: str, send: Send, apart: float = 0) -> None:
            print_stalls(name, [watched(connections, send, apart) for _ in range(rounds)])

        watch("liveness, 5 ms apart", lambda connection, _: connection.request("GET", "/health/live"), APART)
        watch("no hashing: lists of sessions", lambda connection, number: list_sessions(connection, tokens[number]))
        for count in (threads, AT_ONCE):
            ask_probe(connections[0], threads=count)
            watch(f"sign-ins, {count} threads", sign_in)
            watch(f"sign-ins, {count} threads, 5 ms apart", sign_in, APART)


def few(attempts: int) -> int:
    """Of what takes long."""
    return max(1, attempts // 60)


def connect(app: App) -> HTTPConnection:
    connection = HTTPConnection(app.client.base_url.host, app.client.base_url.port, timeout=30)
    connection.connect()
    return connection


def register(connection: HTTPConnection, number: int) -> None:
    send_registration(connection, name_of("existing name", number), name_of("existing email", number))
    receive(connection, 201)


def send_registration(connection: HTTPConnection, name: str, email: str) -> None:
    body = {"username": name, "email": email, "password": PASSWORD}
    connection.request("POST", "/users/register", json.dumps(body), JSON)


def name_of(kind: str, number: int) -> str:
    """All of one length. As many exist as sign in at once, and the unknown ones come as often."""
    name = f"{'learner' if kind.startswith('existing') else 'nothere'}{number % AT_ONCE:05}"
    return f"{name}@example.com" if kind.endswith("email") else name


def asked(connection: HTTPConnection, ask: Ask, kinds: Sequence[str], attempts: int) -> Times:
    """Milliseconds of each, by kind. The first ten of each only warm up."""
    times: Times = {}
    for count in (10, attempts):
        times = {kind: [] for kind in kinds}
        for kind in random.sample(kinds, counts=[count] * len(kinds), k=count * len(kinds)):
            times[kind].append(timed(connection, ask, kind, len(times[kind])))
    return times


def timed(connection: HTTPConnection, ask: Ask, kind: str, number: int) -> float:
    started = time.monotonic()
    ask(connection, kind, number)
    return (time.monotonic() - started) * 1000


def refuse(connection: HTTPConnection, kind: str, number: int) -> None:
    send_form(connection, name_of(kind, number), "wrong horse 9")
    receive(connection, 401)


def ask_reset(connection: HTTPConnection, kind: str, number: int) -> None:
    connection.request("POST", "/auth/password-reset", json.dumps({"email": name_of(kind, number)}), JSON)
    receive(connection, 202)


def register_privately(connection: HTTPConnection, kind: str, number: int) -> None:
    send_registration(connection, f"u{uuid.uuid4().hex[:12]}", name_of(kind, number))
    receive(connection, 201)


def sign_in(connection: HTTPConnection, number: int) -> None:
    send_form(connection, name_of("existing name", number), PASSWORD)


def send_form(connection: HTTPConnection, name: str, password: str) -> None:
    connection.request("POST", "/auth/token", urlencode({"username": name, "password": password}), FORM)


def token_of(connection: HTTPConnection, number: int) -> str:
    sign_in(connection, number)
    return str(json.loads(receive(connection, 200)[1])["access_token"])


def list_sessions(connection: HTTPConnection, token: str) -> None:
    connection.request("GET", "/auth/sessions", headers={"Authorization": f"Bearer {token}"})


def watched(connections: Sequence[HTTPConnection], send: Send, apart: float) -> Seen:
    """What the probe saw of one burst, how long that took, and how often the app was too late for its own deadline."""
    time.sleep(0.3)  # what the last burst left behind
    ask_probe(connections[0])
    started, stolen = time.monotonic(), stolen_seconds()
    unavailable = at_once(connections, send, apart)
    took, stolen = time.monotonic() - started, stolen_seconds() - stolen
    return ask_probe(connections[0]) | {"took": took, "stolen": stolen, "unavailable": unavailable}


def stolen_seconds() -> float:
    """How long this machine's cores were given to others by the one that it is a guest of, since it started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def at_once(connections: Sequence[HTTPConnection], send: Send, apart: float = 0) -> int:
    """Returns how many were answered 503."""
    for number, connection in enumerate(connections):
        send(connection, number)
        time.sleep(apart)
    return [receive(connection, 200, 503)[0] for connection in connections].count(503)


def ask_probe(connection: HTTPConnection, threads: int | None = None) -> Seen:
    connection.request("GET", f"/probe?threads={threads}" if threads else "/probe")
    seen: Seen = json.loads(receive(connection, 200)[1])
    return seen


def receive(connection: HTTPConnection, *expected: int) -> tuple[int, bytes]:
    """Status and body. Raises RuntimeError when the status is another one."""
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in expected:
        raise RuntimeError(f"Answered {answer.status}: {body.decode()}")
    return answer.status, body


def slower(these: Iterable[float], those: Iterable[float]) -> float:
    """The share of pairs in which one of these took longer than one of those; a tie counts half."""
    ordered = sorted(those)
    ranks = [(bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value)) / 2 for value in these]
    return statistics.fmean(ranks) / len(ordered)


def interval(these: Sequence[float], those: Sequence[float], resamples: int = 1000) -> tuple[float, float]:
    """The middle 95 % of what `slower` gives for samples drawn from these samples."""
    drawn = [slower(resampled(these), resampled(those)) for _ in range(resamples)]
    return percentile(drawn, 0.025), percentile(drawn, 0.975)


def resampled(values: Sequence[float]) -> list[float]:
    return random.choices(values, k=len(values))


def print_times(times: Times) -> None:
    print(f"{'':<16} {'n':>6} {'p5':>7} {'p25':>7} {'median':>7} {'p75':>7} {'p95':>7}")
    for kind, values in times.items():
        shares = " ".join(f"{percentile(values, share):7.2f}" for share in (0.05, 0.25, 0.5, 0.75, 0.95))
        print(f"{kind:<16} {len(values):>6} {shares}")


def print_compared(title: str, times: Times) -> None:
    print(f"\n{title}, one at a time, ms")
    print_times(times)
    for this in [kind for kind in times if kind.startswith("existing")]:
        print_comparison(times, this, this.replace("existing", "unknown"))


def print_comparison(times: Times, this: str, that: str) -> None:
    low, high = interval(times[this], times[that])
    print(f"{this} slower than {that}: {slower(times[this], times[that]):.3f} ({low:.3f} to {high:.3f})")


def print_histogram(times: Times) -> None:
    """All kinds on the same bins; the last one holds all that took longer."""
    everything = [value for values in times.values() for value in values]
    low, high = min(everything), percentile(everything, 0.97)
    width = (high - low) / BINS
    counts = {kind: [0] * BINS for kind in times}
    for kind, values in times.items():
        for value in values:
            counts[kind][min(BINS - 1, int((value - low) / width))] += 1
    scale = 20 / max(count for bins in counts.values() for count in bins)
    print(f"\n{'from ms':>8}  " + " ".join(f"{kind:<20}" for kind in times))
    for number in range(BINS):
        bars = " ".join(f"{'#' * round(bins[number] * scale):<20}" for bins in counts.values())
        print(f"{low + number * width:8.1f}  {bars}".rstrip())


def print_stalls(name: str, rounds: Sequence[Seen]) -> None:
    ticks = [tick for seen in rounds for tick in seen["ticks"]]
    late = max(late for late, _ in ticks)
    over = sum(max(late for late, _ in seen["ticks"]) >= LIMIT for seen in rounds)
    computing = max(computing for _, computing in ticks)
    waiting = max(late - computing for late, computing in ticks)
    p99 = percentile([rest for late, _ in ticks for rest in moments(late)], 0.99)
    collection = max((length for seen in rounds for length in seen["collections"]), default=0)
    took = statistics.median(seen["took"] for seen in rounds)
    unavailable = sum(seen["unavailable"] for seen in rounds)
    stolen = sum(seen["stolen"] for seen in rounds) / sum(seen["took"] for seen in rounds) / (os.cpu_count() or 1)
    stolen_then = max(rounds, key=lambda seen: max(late for late, _ in seen["ticks"]))["stolen"] * 1000
    figures = (
        f"{late:6.1f} {over:>2} of {len(rounds):>2} {computing:10.1f} {waiting:8.1f} {p99:6.1f} {collection:5.1f} "
        f"{took:7.2f} s {unavailable:>4} {stolen:7.1%} {stolen_then:5.0f}"
    )
    print(f"{name:<34} {figures}")


def moments(late: float) -> list[float]:
    """What was left of a stall at each of its milliseconds: so long waited what came due then."""
    return [late - passed for passed in range(int(max(late, 0)) + 1)]


ROWS = {
    "sign-ins": compare_times,
    "first": compare_first_times,
    "resets": compare_resets,
    "registrations": compare_registrations,
    "stalls": measure_stalls,
}

if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 600, sys.argv[2:]))
