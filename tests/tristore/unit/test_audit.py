"""An audit of the lock files says what it found, and what it could not look up."""

import subprocess
from typing import Any

import pytest

from tristore.ops import audit

KNOWN = '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, %s]}'
HOLE = '{"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}'
SKIPPED = '{"name": "c", "skip_reason": "not found"}'


@pytest.mark.parametrize(
    ("told", "code", "lines"),
    [
        (
            KNOWN % HOLE,
            1,
            ["x.lock: 1 known vulnerabilities in 2 packages that were audited", "  b 2: CVE-1, mended in 3"],
        ),
        (
            KNOWN % SKIPPED,
            0,
            [
                "x.lock: COULD NOT AUDIT 1 of its packages: not found",
                "x.lock: 0 known vulnerabilities in 1 packages that were audited",
            ],
        ),
        (
            "",
            0,
            [
                "x.lock: COULD NOT AUDIT any of its packages: no route",
                "x.lock: 0 known vulnerabilities in 0 packages that were audited",
            ],
        ),
    ],
)
def test_what_is_found_and_what_is_not_looked_up_is_told(
    told: str, code: int, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-3:] == ["x.lock", "-f", "json"]
        return subprocess.CompletedProcess(command, code, told, "ERROR: first\nno route\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main(["x.lock"]) == code
    assert capsys.readouterr().out.splitlines() == lines
