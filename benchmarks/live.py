"""Question: how soon does a message reach who listens, and what does a listener cost? Run: `make bench-live`
(ARGS="100 5": fewer listeners, fewer seconds).

Method: embedded servers of its own, an app process with all listeners, each to a conversation of its own, a second app
process, and the listeners themselves in a third: what they cost is not the app's. 100 messages a second are posted,
spread over the conversations, first to the process that has the listeners, then to the other, so that Redis must wake
them. Measured are the time from the POST's answer to the event's arrival (it may come first), what was lost, repeated
or out of order (then the exit status is 1), the processor time that the process with the listeners takes for a message,
and its memory with and without them. First the same with a tenth and with one listener; what is printed last is the
plot of docs/performance.md.
"""

import asyncio
import json
import resource
import secrets
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from benchmarks.growth import plot
from tests.product.people import register
from tests.product.things import start_conversation
from tests.under_test import Lab, own_lab
from tristore.testing import log_of_run
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import App, RawConnection, percentile
from tristore.testing.live import listening

MESSAGES_A_SECOND = 100
POSTERS = 20
BAR_MS = 250
Times = dict[str, list[tuple[int, float]]]
"""Of each conversation: the numbers of its messages with the time of each, in the order in which they came."""


@dataclass
class Posted:
    answered: Times = field(default_factory=dict)
    refused: int = 0
    """Answers 503, each repeated at once."""
    rate: float = 0


async def main(listeners: int, seconds: float) -> bool:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, listeners * 2 + 1000), most))
    with guarded_folder("tristore-bench-") as folder:
        log_of_run.keep_in(folder / "apps.log")
        async with own_lab(folder) as lab:
            sizes = sorted({1, max(1, listeners // 10), listeners})
            results = {f"{size:,}": await measure(lab, size, seconds) for size in sizes}
    print(json.dumps(results, indent=2))
    costs = [{size: of_size[way]["cpu_ms_a_message"] for size, of_size in results.items()} for way in WAYS]
    print(plot("Processor time for a message, by listeners", costs))
    ways = [of_size[way] for of_size in results.values() for way in WAYS]
    return not any(seen["lost"] or seen["repeated_or_out_of_order"] for seen in ways)


WAYS = ("from_the_same_process", "from_another_process")


async def measure(lab: Lab, listeners: int, seconds: float) -> dict[str, Any]:
    settings = {"LIVE_MAX_PER_USER": str(listeners + 20), "LOG_LEVEL": "INFO"}
    async with lab.app(**settings) as app, lab.app(**settings) as other:
        headers = await register(app.client)
        conversations = [await start_conversation(app.client, headers) for _ in range(listeners)]
        await warm_up(app, conversations[:20], headers)
        without = memory(app)
        audience = await Audience.gather(app, conversations, headers)
        memory_with = memory(app)
        results: dict[str, Any] = {
            "listeners": listeners,
            "memory_without_mb": round(without / 2**20, 1),
            "kb_more_with_listeners": round((memory_with - without) / 1024),
        }
        for way, posting in zip(WAYS, (app, other), strict=True):
            before = cpu_seconds(app)
            posted = await post_evenly(posting, conversations, headers, seconds)
            results[way] = compare(posted, await audience.heard(posted.answered))
            results[way]["cpu_ms_a_message"] = (cpu_seconds(app) - before) / results[way]["messages"] * 1000
        await audience.leave()
    return results


async def warm_up(app: App, conversations: list[str], headers: dict[str, str]) -> None:
    async with AsyncExitStack() as exits:
        for conversation in conversations:
            await exits.enter_async_context(listening(app.client.base_url, f"{conversation}/events", headers))
        await post_evenly(app, conversations, headers, 3)


def memory(app: App) -> int:
    return int(psutil.Process(app.process.pid).memory_info().rss)


def cpu_seconds(app: App) -> float:
    times = psutil.Process(app.process.pid).cpu_times()
    return float(times.user + times.system)


async def post_evenly(app: App, conversations: list[str], headers: dict[str, str], seconds: float) -> Posted:
    """Post at the rate, one conversation after the other; slower where the app cannot answer as fast."""
    posted = Posted()
    count = round(seconds * MESSAGES_A_SECOND)
    numbers = iter(range(count))
    started = time.monotonic()

    async def post() -> None:
        async with RawConnection.to(app) as connection:
            for i in numbers:
                await asyncio.sleep(started + i / MESSAGES_A_SECOND - time.monotonic())
                conversation = conversations[i % len(conversations)]
                body = {"id": secrets.token_hex(8), "content": "Combien ça coûte ?"}
                status = 503
                while status == 503:
                    status, message = await connection.post(f"{conversation}/messages", headers, body)
                    posted.refused += status == 503
                posted.answered.setdefault(conversation, []).append((message["seq"], time.monotonic()))

    await asyncio.gather(*(post() for _ in range(POSTERS)))
    posted.rate = count / (time.monotonic() - started)
    return posted


def compare(posted: Posted, heard: Times) -> dict[str, Any]:
    late = []
    lost = wrong = 0
    for conversation, times in posted.answered.items():
        came = heard.get(conversation, [])
        at = dict(came)
        lost += sum(number not in at for number, _ in times)
        wrong += [number for number, _ in came] != sorted(at)
        late += [(at[number] - answered_at) * 1000 for number, answered_at in times if number in at]
    p99 = percentile(late, 0.99)
    return {
        "messages": len(late) + lost,
        "messages_a_second": round(posted.rate, 1),
        "refused": posted.refused,
        "lost": lost,
        "repeated_or_out_of_order": wrong,
        "p50_ms": round(percentile(late, 0.5), 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(max(late), 1),
        f"p99_within_{BAR_MS}_ms": p99 < BAR_MS,
    }


class Audience:
    """The process with the listeners: each line to it is a question, each line from it an answer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def gather(cls, app: App, conversations: list[str], headers: dict[str, str]) -> "Audience":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.live", "listen"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**30,
        )
        audience = cls(process)
        assert await audience._ask([str(app.client.base_url), headers, conversations]) == len(conversations)
        return audience

    async def heard(self, answered: Times) -> Times:
        """What has come of this, and of anything else, since the last call."""
        heard: Times = await self._ask(sum(map(len, answered.values())))
        return heard

    async def leave(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()

    async def _ask(self, question: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        return json.loads(await self._process.stdout.readline())


async def listen() -> None:
    """The audience's side."""
    questions = asyncio.StreamReader(limit=2**30)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    base, headers, conversations = json.loads(await questions.readline())
    async with AsyncExitStack() as exits:
        streams = {
            conversation: await exits.enter_async_context(listening(httpx.URL(base), f"{conversation}/events", headers))
            for conversation in conversations
        }
        print(len(streams), flush=True)
        while line := await questions.readline():
            patience = time.monotonic() + 10
            while sum(len(stream.events) for stream in streams.values()) < int(line) and time.monotonic() < patience:
                await asyncio.sleep(0.1)
            heard = {name: [(event.id, event.at) for event in stream.events] for name, stream in streams.items()}
            print(json.dumps(heard), flush=True)
            for stream in streams.values():
                stream.events.clear()


if __name__ == "__main__":
    if sys.argv[1:] == ["listen"]:
        asyncio.run(listen())
    else:
        count, duration = [*map(int, sys.argv[1:]), *(1000, 30)[len(sys.argv) - 1 :]]
        sys.exit(not asyncio.run(main(count, duration)))
