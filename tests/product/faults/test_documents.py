"""The commands that the documents show, run as they stand against an app, with what they are said to print."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from tristore.testing.lab import PROJECT, App

MARK = "---next---"


def commands(document: Path) -> list[tuple[str, str]]:
    """Each `$ ` command of the console blocks with the output that is shown below it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", entry)
            assert command
            found.append((command[0], entry[command.end() :]))
    return found


DOCUMENTS = [
    path.relative_to(PROJECT)
    for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
    if "```console\n$ curl" in path.read_text()
]


def test_the_documents_are_found() -> None:
    assert {Path("README.md"), Path("docs/clients.md")} <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS, ids=str)
async def test_commands_print_what_the_document_says(app: App, name: Path) -> None:
    shown = commands(PROJECT / name)
    assert len(shown) >= 3
    base = f"{app.client.base_url.host}:{app.client.base_url.port}"
    script = "set -e\n" + f"echo; echo {MARK}\n".join(command for command, _ in shown)
    printed = await run(script.replace("localhost:8000", shlex.quote(base)))
    for (command, expected), output in zip(shown, printed.split(f"\n{MARK}\n"), strict=True):
        pattern = ".*".join(map(re.escape, expected.strip().split("…")))
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), (command, output)


async def run(script: str) -> str:
    shell = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await shell.communicate()
    assert shell.returncode == 0
    return out.decode()
