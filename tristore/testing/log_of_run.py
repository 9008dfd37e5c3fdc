"""All that a run logs (this process and every app process) and all error answers, and what must never be in there."""

import logging
import os
import re
import tempfile
from pathlib import Path

import httpx

from config import Settings
from tristore.ops.process import configure_logging

LOG = Path(tempfile.gettempdir()) / f"tristore-tests-{os.getpid()}.log"
SECRETS = {
    "password": r"correct horse 9|battery staple 7|not this one|not the password|hunter2-should-never-come-back",
    "password hash": r"\$argon2",
    "token": r"(?<![\w-])[\w-]{43}(?![\w-])",
    "token's hash": r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])",
    "email": r"(?i)@example\.com",
    "DSN": r"(?:postgres(?:ql)?|redis|mongodb)(?:\+\w+)?://[^\s\"')]*[@:\d]",
}


def start() -> None:
    """Log as in production, at the level that tells most, to the one file."""
    configure_logging(Settings(_env_file=None, environment="test", log_level="DEBUG"))
    root = logging.getLogger()
    handler = logging.FileHandler(LOG)
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers = [handler]


async def note_error(response: httpx.Response) -> None:
    """A hook for clients: what an error answer says is among what must hold no secret."""
    if response.is_error:
        await response.aread()
        with LOG.open("a") as log:
            log.write(f"{response.status_code} {response.text}\n")


def secrets_in(text: str) -> list[str]:
    """What kinds of secrets are in a text, with the lines that hold them."""
    return [
        f"{kind}: {line}" for line in text.splitlines() for kind, pattern in SECRETS.items() if re.search(pattern, line)
    ]
