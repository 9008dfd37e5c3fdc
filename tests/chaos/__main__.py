"""`make chaos`; docs/proof.md shows a run. SEED, MINUTES and BREAK come from the environment, and so does PLAN. It
names a broken variant whose faults and habits the app as it is must stand. STORES=replicated: stores that fail over.
STORES=clustered: Redis is a cluster then."""

import asyncio
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.broken import VARIANTS
from tests.chaos.plans import Course, course, replicated
from tests.chaos.roll import rolls
from tests.chaos.run import Run, prepared
from tests.chaos.schedule import NO_KILLED_APPS, rounds
from tests.chaos.summary import Summary
from tristore.testing.guarded import guarded_folder

RESULTS = Path(".data/chaos")


async def main(seed: int, minutes: float, variant: str, this: Course, name: str) -> bool:
    """Run, report, and return whether it went as it should. `name`: of the run's results, where it is no variant's."""
    result = RESULTS / f"{variant or name}-{seed}.json"
    with guarded_folder("tristore-chaos-") as folder:
        async with prepared(seed, folder, variant, this) as run:
            await go_through(run, seed, this)
            summary = summarize(run, seed, minutes, variant)
        if summary.violations:
            kept = shutil.copytree(folder, result.with_suffix(""), ignore=all_but_logs, dirs_exist_ok=True)
            print(f"the logs are in {kept}")
    summary.write(result)
    print(summary.text)
    found = bool(summary.violations)
    if variant:
        print(f"{variant}: {'found, as it must be' if found else 'NOT FOUND: the lab is blind to it'}")
    return found == bool(variant)


async def go_through(run: Run, seed: int, this: Course) -> None:
    dealt = rounds(seed, this.plan, this.rounds, this.seconds - this.settling)
    for number, faults in enumerate(rolls(seed, this.seconds) if this.roll else dealt, 1):
        await run.round(faults, this.seconds * (len(faults) if this.roll else 1))
        print(f"round {number} of {this.rounds}: {len(run.tally.violations)} violations", flush=True)
        if run.tally.violations:
            return
    run.judge_roll()
    if this.quiet_seconds:
        [faults] = rounds(seed, NO_KILLED_APPS, 1, this.quiet_seconds)
        await run.quiet_round(faults, this.quiet_seconds)


def all_but_logs(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".log")]


def summarize(run: Run, seed: int, minutes: float, variant: str) -> Summary:
    faults: dict[str, Counter[str]] = {}
    for blow in run.arena.blows:
        faults.setdefault(blow.fault.kind, Counter())[blow.fault.target] += 1
    tally = run.tally
    failovers = run.judge_failovers()
    return Summary(
        seed=seed,
        variant=variant,
        minutes=minutes,
        operations=dict(tally.operations),
        acknowledged=tally.acknowledged.total(),
        acknowledged_under_fault=tally.under_fault,
        refused=tally.refused,
        unanswered=tally.unanswered,
        faults={kind: dict(targets) for kind, targets in faults.items()},
        kills_by_call=dict(Counter(run.arena.killed_at_calls())),
        seconds_to_converge=[round(seconds, 1) for seconds in run.converged],
        seconds_starved=round(run.machine.lost, 1),
        load=round(run.machine.load, 1),
        spared=run.machine.spared,
        violations=tally.violations,
        failovers=failovers,
        answered={mix: count for mix, count in tally.answered.items() if mix},
    )


def seed_of_run() -> int:
    return int(_number("SEED", random.randrange(10**6)))


def minutes_of_run() -> float:
    return _number("MINUTES", 3)


def _number(name: str, default: float) -> float:
    text = os.environ.get(name)
    try:
        return float(text) if text else default
    except ValueError:
        sys.exit(f"{name} must be a number")


if __name__ == "__main__":
    variant = os.environ.get("BREAK", "")
    plan = variant or os.environ.get("PLAN", "")
    if plan and plan not in VARIANTS:
        sys.exit(f"BREAK and PLAN must be one of {', '.join(VARIANTS)}")
    stores = os.environ.get("STORES", "")
    if stores and (stores not in {"replicated", "clustered"} or plan):
        sys.exit("STORES must be replicated or clustered, and goes with neither BREAK nor PLAN")
    seed, minutes = seed_of_run(), minutes_of_run()
    this = replicated(minutes, clustered=stores == "clustered") if stores else course(minutes, plan)
    sys.exit(not asyncio.run(main(seed, minutes, variant, this, stores or "seed")))
