"""The commands that the documents show, run as they stand against an app, with what they are said to print."""

import asyncio
import shlex
from pathlib import Path

import pytest

from tests.product.documents import DOCUMENTS, commands, is_shown
from tristore.testing.lab import PROJECT, App

MARK = "---next---"


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
        assert is_shown(output, expected), (command, output)


async def run(script: str) -> str:
    shell = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await shell.communicate()
    assert shell.returncode == 0
    return out.decode()
