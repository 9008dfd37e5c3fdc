"""`make digests`, with a docker of the test's own."""

import hashlib
import re
from pathlib import Path

import pytest

from tristore.ops.digests import main, pinned

DOCKER = """#!/bin/sh
test "$1 $2 $3" = "buildx imagetools inspect" || exit 1
test "$4" != "{unknown}" || {{ echo "ERROR: no such host" >&2; exit 1; }}
echo "sha256:$(printf %s "$4" | sha256sum | cut -d' ' -f1)"
"""
FILES = {
    "Dockerfile": "FROM python:3.13.16-slim-trixie AS build\nRUN true\nFROM python:3.13.16-slim-trixie\n",
    "docker-compose.yml": """x-app: &app
  image: my-own:some-tag
  build: .
services:
  store:
    image: registry.example.com:5000/of/store:18.6-trixie
    mem_limit: 1g
  cache:
    image: cache:8.2.8  # exact
""",
}
TAKEN = [*["python:3.13.16-slim-trixie"] * 2, "registry.example.com:5000/of/store:18.6-trixie", "cache:8.2.8"]


def digest(image: str) -> str:
    return f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    use_docker(tmp_path, monkeypatch)
    return [tmp_path / name for name in FILES]


def use_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, unknown: str = "") -> None:
    (folder / "docker").write_text(DOCKER.format(unknown=unknown))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_each_image_from_a_registry_is_pinned_and_what_is_built_here_is_not(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file) for file in files]) == 0
    assert capsys.readouterr().out.split() == [f"{image}@{digest(image)}" for image in TAKEN]
    text = "".join(file.read_text() for file in files)
    assert re.findall(r"(\S+)@(sha256:\S+)", text) == [(image, digest(image)) for image in TAKEN]


def test_pinned_anew_the_digest_is_another_and_nothing_else_changes() -> None:
    zeros = f"sha256:{'0' * 64}"
    for text in FILES.values():
        first = pinned(text, lambda image: zeros)
        assert pinned(first, digest) == pinned(text, digest) != first
        assert first.replace(f"@{zeros}", "") == text


def test_where_one_is_not_told_no_file_changes(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_docker(tmp_path, monkeypatch, unknown=TAKEN[-1])
    assert main([str(file) for file in files]) == 1
    assert capsys.readouterr().err.startswith(f"{TAKEN[-1]}: ERROR: no such host\n")
    assert [file.read_text() for file in files] == list(FILES.values())


def test_without_docker_it_says_so(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([str(file) for file in files]) == 1
    assert capsys.readouterr().err.startswith("There is no docker on the PATH")
