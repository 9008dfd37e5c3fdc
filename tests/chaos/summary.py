"""What a run has shown, for people and as JSON."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.memory import Violation

SHOWN = 10


@dataclass(frozen=True)
class Summary:
    seed: int
    variant: str
    minutes: float
    operations: dict[str, int]
    acknowledged: int
    acknowledged_under_fault: int
    refused: int
    unanswered: int
    faults: dict[str, dict[str, int]]
    """By kind and target."""
    kills_by_call: dict[str, int]
    seconds_to_converge: list[float]
    """After the last fault of each round."""
    seconds_starved: float
    """For which the lab stood still or an app had no core. `load`: of each core. `spared`: what was late therefore."""
    load: float
    spared: int
    violations: list[Violation]
    failovers: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    """In a roll: requests with success, by the releases of the apps."""

    @property
    def text(self) -> str:
        operations = sum(self.operations.values())
        share = self.acknowledged_under_fault / max(1, self.acknowledged)
        lines = [
            f"seed {self.seed}, {self.minutes:g} minutes" + (f", broken: {self.variant}" if self.variant else ""),
            f"operations         {operations}: {_counted(self.operations)}",
            f"acknowledged       {self.acknowledged}, under fault {self.acknowledged_under_fault} ({share:.0%})",
            f"refused for good   {self.refused}",
            f"without an answer  {self.unanswered}",
            f"faults             {sum(sum(targets.values()) for targets in self.faults.values())}",
            *(f"  {kind:<17}{_counted(targets)}" for kind, targets in sorted(self.faults.items())),
            f"killed at calls    {sum(self.kills_by_call.values())}: {_counted(self.kills_by_call)}",
            *(f"failover           {failover}" for failover in self.failovers),
            *([f"with success by    {_counted(self.answered)}"] if self.answered else []),
            f"time to converge   {', '.join(f'{seconds:.1f}' for seconds in self.seconds_to_converge)} s",
            f"machine            {self._starved}load {self.load:.1f} of each core",
            f"violations         {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations[:SHOWN]),
        ]
        return "\n".join(lines)

    @property
    def _starved(self) -> str:
        if not self.seconds_starved:
            return ""
        return f"starved for {self.seconds_starved:.1f} s, {self.spared} things late and not held against the app, "

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = asdict(self)
        path.write_text(json.dumps(values, indent=1))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common())
