"""What make says when it cannot do what is asked: a sentence, with the cure."""

import subprocess

import pytest

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
