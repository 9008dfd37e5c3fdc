"""Runs the guide's clients on generated code, on a connection that loses answers."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.product.clients.generated import generate
from tests.product.clients.generators.conftest import Run
from tristore.testing.lab import PROJECT, App
from tristore.testing.proxy import Proxy, proxy_to

Prepare = Callable[[Path, Run, str], list[str]]
"""Makes the client that a script needs, in a folder. Returns the command that runs the script."""


def python(folder: Path, run: Run, script: str) -> list[str]:
    generate((folder / "openapi.json").read_text(), folder)
    return [sys.executable, f"{script}.py"]


def typescript(folder: Path, run: Run, script: str) -> list[str]:
    run("openapi-typescript", "openapi.json", "--output=schema.d.ts", "--default-non-nullable=false")
    shutil.copy(Path(__file__).with_name("tsconfig.json"), folder)
    run("tsc")
    return ["node", f"{script}.mts"]


async def lose_answers(proxy: Proxy, lost: Sequence[bytes]) -> None:
    """To the requests that have these in them, one after the other. Each time all connections are cut."""
    for matching in lost:
        proxy.lost, proxy.lose_answer_to = 0, matching
        while not proxy.lost:
            await asyncio.sleep(0.01)
        proxy.lose_answer_to = b""
        proxy.reset()


async def told_by(script: str, prepare: Prepare, app: App, run: Run, folder: Path, lost: Sequence[bytes]) -> Any:
    """What the script has printed at its end, though all these answers were lost. The folder has the document."""
    for file in (PROJECT / "docs/clients").glob("*.*"):
        shutil.copy(file, folder)
    command = prepare(folder, run, script)
    port = app.client.base_url.port
    assert port
    async with proxy_to(port) as proxy:
        arguments = (*command, f"http://127.0.0.1:{proxy.port}")
        client = await asyncio.create_subprocess_exec(*arguments, cwd=folder, stdout=asyncio.subprocess.PIPE)
        losing = asyncio.create_task(lose_answers(proxy, lost))
        try:
            printed, _ = await asyncio.wait_for(client.communicate(), 90)
            assert client.returncode == 0
            assert losing.done()
        finally:
            losing.cancel()
            if client.returncode is None:
                client.kill()
                await client.wait()
    return json.loads(printed)
