"""Contestants do the same work in turns, round after round; the medians are compared, printed and kept."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load import Run, count_requests, load
from tristore.testing.lab import App

BARE, REDIS_GET, RAW_ROW, HASH, RAW = "bare route", "one Redis GET", "one raw row", "only hashing", "raw drivers"
WIRING = "straightforward"
SPARED = ", GC spared"
"""A ceiling with the app's settings for garbage collection, which others could make too."""
HEADER = f"{'':<26}  good/s  p50 ms  p99 ms errors    503  CPU us  busy  ratios of rates (of CPU times)"


@dataclass(frozen=True)
class Contestant:
    app: App
    requests: Path
    connections: int = 32
    warm: Path | None = None
    """What is sent before each round, each of it at least once, and not measured."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Done before that."""
    ours: bool = False
    """Whether its errors are errors of the benchmark."""
    second: App | None = None
    """Another process, which has half of the connections. The rates are added."""


@dataclass(frozen=True)
class Bar:
    who: str
    of: str
    least: float


@dataclass
class Comparisons:
    rounds: int
    seconds: int
    together: bool
    runs: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    errors: int = 0

    async def run(
        self, what: str, contestants: Mapping[str, Contestant], against: Sequence[str] = (), bars: Sequence[Bar] = ()
    ) -> dict[str, list[Run]]:
        """`against` names those whose rates the others' are divided by."""
        runs: dict[str, list[Run]] = {who: [] for who in contestants}
        for _ in range(self.rounds):
            for who, run in zip(contestants, await self._round(contestants.values()), strict=True):
                runs[who].append(run)
        print(f"\n{what}\n{HEADER}")
        for who, of_one in runs.items():
            ratios = {other: ratios_of(of_one, runs[other]) for other in against if other != who}
            self._tell(what, who, of_one, ratios)
            if contestants[who].ours:
                self.errors += sum(run.errors for run in of_one)
        for bar in bars:
            self.judge(f"{what}: {bar.who} of {bar.of}", ratios_of(runs[bar.who], runs[bar.of])[0], bar.least)
        return runs

    async def _round(self, contestants: Iterable[Contestant]) -> list[Run]:
        turns = [_turn(contestant, self.seconds) for contestant in contestants]
        return await asyncio.gather(*turns) if self.together else [await turn for turn in turns]

    def judge(self, what: str, reached: float, least: float) -> None:
        self.fact(what, round(reached, 2), f"at least {least}", met=reached >= least)

    def fact(self, what: str, value: object, bar: str = "", *, met: bool = True) -> None:
        self.facts.append({"what": what, "value": value, "bar": bar, "met": met})
        print(f"{'  ' if met else '! '}{what}: {value}{bar and f' (bar: {bar})'}")

    def _tell(self, what: str, who: str, runs: Sequence[Run], ratios: Mapping[str, tuple[float, float]]) -> None:
        self.runs.append({"what": what, "who": who, "ratios": ratios, "rounds": [asdict(run) for run in runs]})
        figures = [median(runs, lambda run: run.rate), median(runs, lambda run: run.p50_ms)]
        line = f"{who:<26} {figures[0]:7.0f} {figures[1]:7.1f} {median(runs, lambda run: run.p99_ms):7.1f}"
        line += f" {sum(run.errors for run in runs):6} {sum(run.refused for run in runs):6}"
        line += f" {median(runs, lambda run: run.cpu_us):7.0f} {median(runs, lambda run: run.busy):5.2f}"
        print(line, " " + ", ".join(f"{rate:.2f} ({cpu:.2f}) of {other}" for other, (rate, cpu) in ratios.items()))


async def _turn(contestant: Contestant, seconds: int) -> Run:
    if contestant.prepare:
        await contestant.prepare()
    if contestant.warm:
        await send_all(contestant.app, contestant.warm)
    if contestant.second is None:
        return await load_some(contestant.app, contestant.requests, seconds, contestant.connections)
    halves = [
        load_some(app, contestant.requests, seconds, contestant.connections // 2)
        for app in (contestant.app, contestant.second)
    ]
    one, other = await asyncio.gather(*halves)
    return one.beside(other)


async def send_all(app: App, requests: Path) -> None:
    """Each of them, at least once."""
    await send(app, requests, count_requests(requests))


async def send(app: App, requests: Path, least: int) -> int:
    """Returns how many were answered. Raises RuntimeError."""
    sent, seconds = 0, 1
    while sent < least:
        sending = (await load_some(app, requests, seconds, skip=sent)).requests
        sent += sending
        seconds = max(1, round((least - sent) / sending * seconds))
    return sent


async def load_some(app: App, requests: Path, seconds: int, connections: int = 32, *, skip: int = 0) -> Run:
    """Longer where a busy machine gave no answer at all: that would hide every error. Raises RuntimeError."""
    for longer in (1, 4, 16, 64):
        run = await load(app, requests, seconds * longer, connections, skip=skip)
        if run.requests:
            return run
    raise RuntimeError(f"{app.client.base_url} answered nothing")


def ratios_of(these: Sequence[Run], those: Sequence[Run]) -> tuple[float, float]:
    """Of the rates, and of what the servers alone could do, by their processor time. Round by round, because other work
    on the machine slows both sides of a round."""
    pairs = list(zip(these, those, strict=True))
    by_rate = statistics.median(this.rate / max(that.rate, 1) for this, that in pairs)
    return by_rate, statistics.median(that.cpu_us / max(this.cpu_us, 1) for this, that in pairs)


def median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(run) for run in runs)
