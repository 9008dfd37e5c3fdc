"""All that a run logs (this process and every app process) and all error answers."""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

_file = Path(tempfile.gettempdir()) / f"tristore-{os.getpid()}.log"


def path() -> Path:
    """The file of this process and of the apps that it starts."""
    return _file


def keep_in(file: Path) -> None:
    """From now on, apps that are started log to this file."""
    global _file
    _file = file


def write_to(file: Path) -> None:
    """The same, and this process logs to it, in the form that its log has now."""
    keep_in(file)
    root = logging.getLogger()
    handler = logging.FileHandler(file)
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers = [handler]


def since(size: int, most: int = 20_000) -> str:
    """What was logged after the file had so many bytes, or its last `most` bytes."""
    with _file.open("rb") as log:
        log.seek(max(size, _file.stat().st_size - most))
        return log.read().decode(errors="replace")


async def note_error(response: httpx.Response) -> None:
    """A hook for clients: an error answer, too, must hold no secret."""
    if response.is_error:
        await response.aread()
        with _file.open("a") as log:
            log.write(f"{response.status_code} {response.text}\n")


HOOKS: Mapping[str, list[Callable[..., object]]] = {"response": [note_error]}


def secrets_in(text: str, patterns: Mapping[str, str]) -> list[str]:
    """The lines of a text that hold a secret, each after the secret's kind. `patterns` has an expression for a kind."""
    return [
        f"{kind}: {line}"
        for line in text.splitlines()
        for kind, pattern in patterns.items()
        if re.search(pattern, line)
    ]
