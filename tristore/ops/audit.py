"""`make audit`: asks for known vulnerabilities of what lock files pin, and tells what it could not ask about."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click


def main(locks: Sequence[str]) -> int:
    """Print a line for each lock file and each vulnerability. Returns 1 if there is one, else 0: a machine without the
    index's data can audit nothing, and says so."""
    found = 0
    for lock in locks:
        packages, why_not = audited(lock)
        known = [package for package in packages if "vulns" in package]
        told = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
        if len(known) < len(packages):
            why_not = next(package["skip_reason"] for package in packages if "skip_reason" in package)
        if why_not:
            click.echo(f"{lock}: COULD NOT AUDIT {len(packages) - len(known) or 'any'} of its packages: {why_not}")
        click.echo(f"{lock}: {len(told)} known vulnerabilities in {len(known)} packages that were audited")
        for package, vulnerability in told:
            mended = ", ".join(vulnerability["fix_versions"]) or "no release yet"
            click.echo(f"  {package['name']} {package['version']}: {vulnerability['id']}, mended in {mended}")
        found += len(told)
    return int(bool(found))


def audited(lock: str) -> tuple[list[dict[str, Any]], str]:
    """The packages of a lock file as pip-audit tells of them, or why it tells nothing."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", lock, "-f", "json"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - the words are ours
    try:
        packages: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except ValueError:
        return [], (run.stderr.strip() or "no answer").splitlines()[-1]
    return packages, ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
