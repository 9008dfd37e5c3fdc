"""What the documents show is run by a test, or is there."""

import re
from pathlib import Path

import click
import pytest

from manage import cli
from tests.product.documents import DOCUMENTS, RUN_BY, TRANSLATION, blocks, documents
from tristore.testing.lab import PROJECT

NAMES = [str(path.relative_to(PROJECT)) for path in documents()]
MAKEFILES = [PROJECT / "Makefile", *PROJECT.glob("examples/*/*.mk")]
TARGETS = {name for file in MAKEFILES for name in re.findall(r"^([a-z-]+):", file.read_text(), re.MULTILINE)}
TRANSLATIONS = [*PROJECT.glob(f"*{TRANSLATION}"), *(PROJECT / "docs").glob(f"*{TRANSLATION}")]


@pytest.mark.parametrize("name", NAMES)
def test_every_console_block_is_run_by_a_test(name: str) -> None:
    shown = list(blocks(PROJECT / name, "console"))
    runner = RUN_BY.get(name, "")
    assert not shown or Path(name) in DOCUMENTS or Path(name).name in (PROJECT / runner).read_text(), (
        f"No test runs the console blocks of {name}. Name one in RUN_BY of tests/product/documents.py, or mark what is "
        "only shown: ```text for output, ```sh for commands that explain themselves"
    )


@pytest.mark.parametrize("name", NAMES)
def test_targets_and_commands_that_are_named_are_there(name: str) -> None:
    text = (PROJECT / name).read_text()
    code = [
        *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)),
        *blocks(PROJECT / name, "sh", "bash"),
    ]
    for part in code:
        for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]+)", part):
            assert target in TARGETS, f"{name} names `make {target}`, which is not in the Makefile"
        for words in re.findall(r"manage\.py ([a-z-]+(?: [a-z-]+)?)", part):
            assert is_command(words.split()), f"{name} names `manage.py {words}`, which is no command"


def is_command(words: list[str]) -> bool:
    group, context = cli, click.Context(cli)
    found = group.get_command(context, words[0])
    if isinstance(found, click.Group) and len(words) > 1:
        return found.get_command(context, words[1]) is not None
    return found is not None


def test_there_are_translations() -> None:
    assert {path.name for path in TRANSLATIONS} >= {"README.zh-CN.md", "first-hour.zh-CN.md"}


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda path: path.name)
def test_a_translation_shows_the_same_commands_and_output(translation: Path) -> None:
    original = translation.with_name(translation.name.replace(TRANSLATION, ".md"))
    assert list(blocks(translation, "console")) == list(blocks(original, "console"))
