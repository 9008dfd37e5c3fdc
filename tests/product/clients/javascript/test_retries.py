"""The guide's way to send a request until it is answered, in Node."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tristore.testing.lab import PROJECT

DRIVER = """
import { retry } from "%s";
const answers = JSON.parse(process.argv[1]), asked = [];
globalThis.fetch = async () => {
  asked.push(Date.now());
  const [status, wait] = answers.shift();
  return new Response("", { status, headers: wait === null ? {} : { "Retry-After": wait } });
};
const { status } = await retry(new Request("http://test/things"));
console.log(JSON.stringify([status, asked.slice(1).map((at, i) => (at - asked[i]) / 1000)]));
"""
Answers = list[tuple[int, str | None]]


def retried(answers: Answers) -> tuple[int, list[float]]:
    """The status that the caller is given, and the seconds between requests."""
    script = DRIVER % (PROJECT / "docs/clients/retries.mts").as_uri()
    command = ["node", "--experimental-strip-types", "--input-type=module", "-e", script, json.dumps(answers)]
    status, waits = json.loads(subprocess.check_output(command, timeout=60))
    return status, waits


def test_it_waits_as_long_as_it_is_told() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    status, waits = retried([(503, "1"), (503, date), (200, None)])
    assert (status, len(waits)) == (200, 2)
    assert waits[0] >= 1
    assert waits[1] > 1  # dates are in whole seconds


@pytest.mark.parametrize("wait", ["3600", "later", "", None])
def test_it_gives_what_waiting_does_not_help(wait: str | None) -> None:
    assert retried([(429, wait)]) == (429, [])
