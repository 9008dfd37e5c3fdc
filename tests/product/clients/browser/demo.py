"""`make demo` as a person starts it."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tristore.testing.lab import PROJECT


@asynccontextmanager
async def demo() -> AsyncIterator[str]:
    """The address of its page. It is ended with Ctrl-C."""
    command = (sys.executable, "manage.py", "demo", "--no-browser")
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=PIPE, stderr=STDOUT)
    assert process.stdout
    printed = ""
    try:
        async with asyncio.timeout(100):
            while not (found := re.search(r"Open (http://\S+) in a browser", printed)):
                line = (await process.stdout.readline()).decode()
                assert line, printed
                printed += line
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
    assert process.returncode == 0
    assert "the data of the demo is deleted" in rest.decode()
