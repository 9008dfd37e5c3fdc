"""What make says when it cannot do what is asked: a sentence, with the cure."""

import subprocess
from collections.abc import Callable

import pytest

from benchmarks.bench import Size
from benchmarks.bench import main as bench
from tests.chaos.__main__ import minutes_of_run, seed_of_run
from tests.product.outside import environment
from tristore.testing.lab import PROJECT


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-o .venv/installed migration", 'Give it a name: make migration NAME="add notes"'),
        ("-B PYTHON=no-such-python .venv/installed", "There is no no-such-python on the PATH. Install Python 3.11"),
    ],
)
def test_an_error_of_make_is_a_sentence(arguments: str, said: str) -> None:
    done = subprocess.run(["make", *arguments.split()], cwd=PROJECT, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith(said)


def test_a_comparison_that_is_not_there_is_told_before_anything_is_measured() -> None:
    with pytest.raises(SystemExit, match=r"ARGS must be some of profiles, .*health"):
        bench(Size(), ["helth"])


@pytest.mark.parametrize(("name", "read"), [("SEED", seed_of_run), ("MINUTES", minutes_of_run)])
def test_what_is_no_number_is_told_in_a_sentence(
    name: str, read: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "some")
    with pytest.raises(SystemExit, match=f"{name} must be a number"):
        read()
