"""The operator's commands, run as an operator runs them."""

import asyncio
import sys

from tests.under_test import Lab
from tristore.testing.lab import PROJECT
from tristore.testing.stores import environment


async def outbox(lab: Lab, *arguments: str) -> tuple[int, str]:
    return await manage(lab, "outbox", *arguments)


async def manage(lab: Lab, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", *arguments),
        cwd=PROJECT,
        env=environment(lab.settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, (output or errors).decode()
