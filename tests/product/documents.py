"""What the documents show: their blocks, and the commands in them."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tristore.testing.lab import PROJECT

BLOCK = re.compile(r"^ *```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
STEP = re.compile(
    r"^(?:Create|In) `(?P<path>[^`]+)`|^```(?P<kind>python|diff|console)\n(?P<block>.*?)^```", re.DOTALL | re.MULTILINE
)

COPIES = "tests/product/copies"
RUN_BY = {
    "docs/add-an-entity.md": f"{COPIES}/conftest.py",
    "docs/add-an-effect.md": f"{COPIES}/test_how_to.py",
    "docs/first-hour.md": f"{COPIES}/test_first_hour.py",
    "docs/first-order.md": f"{COPIES}/test_first_hour.py",
    "docs/make-it-yours.md": f"{COPIES}/conftest.py",
    "docs/upgrading.md": f"{COPIES}/conftest.py",
}
"""Documents whose console blocks have a test of their own. All others are run by faults/test_documents.py, which finds
them by their first command, a `curl`. A translation shows the commands of its original."""
TRANSLATION = ".zh-CN.md"


def documents() -> list[Path]:
    """All that are no translations."""
    found = [path for place in ("*.md", "docs/**/*.md", "examples/*/*.md") for path in sorted(PROJECT.glob(place))]
    return [path for path in found if not path.name.endswith(TRANSLATION)]


def blocks(document: Path, *kinds: str) -> Iterator[str]:
    """The texts of the fenced blocks of these kinds."""
    return (found["text"] for found in BLOCK.finditer(document.read_text()) if found["kind"] in kinds)


def facts(document: Path) -> dict[str, Counter[str]]:
    """What a translation keeps, and how often: code, targets of links, figures, the first column of blocks."""
    text = document.read_text()
    prose = BLOCK.sub("", text)
    lines = [line for block in blocks(document, "", "sh", "text") for line in block.splitlines()]
    return {
        "code": Counter(re.findall(r"`([^`]+)`", prose)),
        "links": Counter(link.replace(TRANSLATION, ".md") for link in re.findall(r"\]\(([^)]+)\)", prose)),
        "figures": Counter(re.findall(r"\d+(?:[.,]\d+)*", text)),
        "columns": Counter(re.split(r" {2,}|#", line)[0].strip() for line in lines),
    }


def commands(document: Path) -> list[tuple[str, str]]:
    """Each `$ ` command of the console blocks with the output that is shown below it."""
    found: list[tuple[str, str]] = []
    for block in blocks(document, "console"):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", entry)
            assert command
            found.append((command[0], entry[command.end() :]))
    return found


def is_shown(output: str, expected: str) -> bool:
    """Whether a document that shows `expected` tells the truth. In it … stands for what differs, and the distance of
    columns does not matter."""
    pattern = ".*".join(map(re.escape, expected.strip().split("…")))
    return re.fullmatch(re.sub(r"(?:\\ ){2,}", r" +", pattern), output.strip(), re.DOTALL) is not None


DOCUMENTS = [
    path.relative_to(PROJECT)
    for path in documents()
    if "```console\n$ curl" in path.read_text() and str(path.relative_to(PROJECT)) not in RUN_BY
]
"""Whose commands run one after the other against an app."""
