"""`make digests`: pins each image that a file takes from a registry to what the registry has under its tag now."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

IMAGE = re.compile(
    r"^(?P<word>FROM| *image:) (?P<name>[\w./:-]+:[\w.-]+)(?:@sha256:[0-9a-f]+)?(?!\S)(?!\n *build:)", re.MULTILINE
)
"""Not one that is built here."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Unknown(Exception):
    """The registry has not told a digest. The message says what it told instead."""


def main(files: Sequence[str]) -> int:
    """Print each image with its digest. Returns 1, and changes no file, where one is not told."""
    try:
        texts = {path: pinned(Path(path).read_text(), digest_of) for path in files}
    except Unknown as error:
        click.echo(f"{error}\nNothing is pinned.", err=True)
        return 1
    for path, text in texts.items():
        Path(path).write_text(text)
    return 0


def pinned(text: str, ask: Callable[[str], str]) -> str:
    """The text with digests. Raises Unknown."""
    return IMAGE.sub(lambda found: f"{found['word']} {found['name']}@{ask(found['name'])}", text)


def digest_of(image: str) -> str:
    """Of all its platforms together. Raises Unknown."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the words are ours
    except FileNotFoundError:
        raise Unknown("There is no docker on the PATH, which asks the registry.") from None
    digest = run.stdout.strip()
    if not DIGEST.fullmatch(digest):
        raise Unknown(f"{image}: {(run.stderr.strip() or digest or 'no answer').splitlines()[-1]}")
    click.echo(f"{image}@{digest}")
    return digest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
