"""What the documents show is run by a test, or is there."""

import re
from pathlib import Path

import click
import pytest

from manage import cli
from tests.product.copies.tree import steps
from tests.product.documents import BLOCK, DOCUMENTS, RUN_BY, TRANSLATION, blocks, documents, facts
from tristore.testing.lab import PROJECT

NAMES = [str(path.relative_to(PROJECT)) for path in documents()]
MAKEFILES = [PROJECT / "Makefile", *PROJECT.glob("examples/*/*.mk")]
TARGETS = {name for file in MAKEFILES for name in re.findall(r"^([a-z-]+):", file.read_text(), re.MULTILINE)}
LINK = re.compile(rf"\]\(([\w-]+{re.escape(TRANSLATION)})\)")
TRANSLATIONS = sorted({path.parent / name for path in documents() for name in LINK.findall(path.read_text())})


@pytest.mark.parametrize("name", NAMES)
def test_every_console_block_is_run_by_a_test(name: str) -> None:
    assert Path(name) in DOCUMENTS or sorted(followed(name)) == sorted(blocks(PROJECT / name, "console")), (
        f"No test runs all console blocks of {name}. Name one in RUN_BY of tests/product/documents.py that follows "
        "their sections. Or mark what is only shown: ```text for output, ```sh for commands that explain themselves"
    )


def followed(name: str) -> list[str]:
    """The console blocks in the document, or in those of its sections, that the test in RUN_BY names."""
    test = (PROJECT / RUN_BY[name]).read_text() if name in RUN_BY else ""
    sections = re.findall(rf'"{re.escape(name)}"(?:, "([^"]*)")?', test)
    return [
        step["block"] for section in sections for step in steps(PROJECT / name, section) if step["kind"] == "console"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_stands_in_a_console_block_or_in_output(name: str) -> None:
    for found in BLOCK.finditer((PROJECT / name).read_text()):
        assert found["kind"] in ("console", "text") or not re.search(r"^ *\$ ", found["text"], re.MULTILINE), (
            f"{name} shows a command with a prompt, and no test runs it: call its block ```console\n{found['text']}"
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


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_in_a_table_of_questions_has_its_command_and_commit(name: str) -> None:
    for rows in re.findall(r"^\| question \|.*\n\|[-|]+\n((?:\|.*\n)+)", (PROJECT / name).read_text(), re.MULTILINE):
        for row in rows.splitlines():
            assert re.search(r"`make .*`[0-9a-f]{7}`", row), (
                f"{name}: what repeats this, and of which commit is it?\n{row}"
            )


def is_command(words: list[str]) -> bool:
    group, context = cli, click.Context(cli)
    found = group.get_command(context, words[0])
    if isinstance(found, click.Group) and len(words) > 1:
        return found.get_command(context, words[1]) is not None
    return found is not None


def test_each_translation_is_linked_by_its_original_and_no_link_is_left_without_one() -> None:
    """Whoever keeps no translation deletes it with the link to it."""
    found = [*PROJECT.glob(f"*{TRANSLATION}"), *(PROJECT / "docs").glob(f"*{TRANSLATION}")]
    assert sorted(found) == TRANSLATIONS


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda path: path.name)
def test_a_translation_shows_the_same_commands_and_output(translation: Path) -> None:
    original = translation.with_name(translation.name.replace(TRANSLATION, ".md"))
    assert list(blocks(translation, "console")) == list(blocks(original, "console"))


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda path: path.name)
def test_a_translation_has_the_same_code_links_and_figures(translation: Path) -> None:
    original = facts(translation.with_name(translation.name.replace(TRANSLATION, ".md")))
    for kind, found in facts(translation).items():
        assert found == original[kind], f"{translation.name} differs from its original in {kind}"
