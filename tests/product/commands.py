"""The operator's commands, run as an operator runs them."""

from pathlib import Path
from tempfile import TemporaryDirectory

from anyio import to_thread

from tests.under_test import Lab
from tristore.testing import warm
from tristore.testing.lab import PROJECT
from tristore.testing.stores import environment


async def outbox(lab: Lab, *arguments: str) -> tuple[int, str]:
    return await manage(lab, "outbox", *arguments)


async def manage(lab: Lab, *arguments: str) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        files = {"output": output, "log": errors}
        process = warm.WarmProcess("manage", *arguments, cwd=PROJECT, env=environment(lab.settings), **files)
        code = await process.wait()
        return code, await to_thread.run_sync(lambda: output.read_text() or errors.read_text())
