"""Each import contract of pyproject.toml finds a breach of it, and its name says what to do."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS: list[str] = [contract["name"] for contract in SETTINGS["contracts"]]
# How a contract's name begins -> a module, and what it must not import.
BREACHES = {
    "Imports go": ("models.user", "repositories.user_repo"),
    "A router knows": ("routers.users", "repositories.user_repo"),
    "Below the routers": ("services.user_service", "fastapi"),
    "Routers and services know": ("services.user_service", "sqlalchemy"),
    "tristore/ and its tests": ("tristore.errors", "models.user"),
    "Within tristore/": ("tristore.errors", "tristore.models"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `make check` says of each broken contract, in a copy of the tree that has all the breaches."""
    copy = tmp_path_factory.mktemp("copy")
    for name in [*SETTINGS["root_packages"], *(path.name for path in PROJECT.glob("*.py")), "pyproject.toml"]:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, copy / name)
    for module, forbidden in BREACHES.values():
        with (copy / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"\nimport {forbidden}\n")
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "300"}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    told: dict[str, str] = {}
    name = ""
    for line in done.stdout.partition("Broken contracts")[2].splitlines():
        name = line if line in CONTRACTS else name
        told[name] = told.get(name, "") + line + "\n"
    return told


def test_each_contract_has_a_breach_here() -> None:
    for name in CONTRACTS:
        assert sum(name.startswith(start) for start in BREACHES) == 1, (
            f"Add a breach of this contract to BREACHES: {name}"
        )


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_breach_is_found_and_told_with_its_cure(broken: dict[str, str], name: str) -> None:
    module, forbidden = next(breach for start, breach in BREACHES.items() if name.startswith(start))
    assert name in broken, f"{module} imports {forbidden}, and this contract does not say so: {name}"
    assert f"{module} -> {forbidden}" in broken[name]
    assert name.partition(": ")[2], f"Say after a colon what to do where this contract is broken: {name}"
