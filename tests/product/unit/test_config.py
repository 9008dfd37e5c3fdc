"""The settings of the service: what is refused at the start, and how it is said."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import NAME, Settings

PROJECT = Path(__file__).parents[3]

PASSWORD = "s3cr3t-of-the-database"


def make(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_limit_requests", "often"),
        ("rate_limit_registration", "10"),
        ("rate_limit_sign_in_account", "10/moon"),
        ("rate_limit_sign_in_address", "0x1/minute"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        make(**{name: value})


def test_production_refuses_the_password_that_the_compose_file_has() -> None:
    with pytest.raises(ValidationError, match="REDIS_DSN has a well-known password"):
        make(environment="production", redis_dsn=f"redis://:{NAME}@cache/0")


@pytest.mark.parametrize("without", [{"environment": "test"}, {"mail_dsn": "off"}])
def test_registrations_are_private_only_where_there_is_mail(without: dict[str, str]) -> None:
    told = r"needs mail, which tells the owner of an address that somebody wants it: set MAIL_DSN"
    with pytest.raises(ValidationError, match=told):
        make(registration_privacy=True, **without)
    for mail in ({"environment": "local"}, {"environment": "test", "mail_dsn": "smtp://127.0.0.1"}):
        assert make(registration_privacy=True, **mail).registration_privacy


def test_every_room_of_the_product_logs_at_the_level_that_is_set() -> None:
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    others = {"tests", "benchmarks", "examples", "migrations", "tristore"}
    assert set(Settings.own_loggers) == packages - others | {"main"}


STARTS = [
    ["-m", "uvicorn", "main:app"],
    ["main.py"],
    ["manage.py", "migrate"],
    ["-m", "alembic", "current"],
]
NO_FOLDER = {"SECRETS_DIR": "/nowhere"}


def said_by(start: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """What a process says that is started elsewhere than where a `.env` may be."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_DSN")}
    found = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    files = [str(PROJECT / part) if part.endswith(".py") else part for part in start]
    config = ["-c", str(PROJECT / "pyproject.toml")] if "alembic" in start else []
    command = [sys.executable, *files[:2], *config, *files[2:]]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=inherited | found | NO_FOLDER | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("start", STARTS, ids=" ".join)
def test_each_mistake_is_one_line_and_the_process_ends(start: list[str], tmp_path: Path) -> None:
    code, said = said_by(start, tmp_path, PORT="x", POSTGRES_DSN=f"postgresql://app:{PASSWORD}/x@db/app")
    heading, port, dsn = said.splitlines()
    assert (code, heading) == (1, "The settings are wrong:")
    assert port.startswith("  PORT: ")
    assert dsn.startswith("  POSTGRES_DSN: ")
    assert PASSWORD not in said


def test_production_names_each_problem_in_a_line_of_its_own(tmp_path: Path) -> None:
    said = said_by(["manage.py", "migrate"], tmp_path, ENVIRONMENT="production")[1]
    assert said.splitlines()[1:] == [
        *(f"  {name}_DSN is not set (production refuses that)" for name in ("POSTGRES", "REDIS", "MONGODB")),
        "  MAIL_DSN is not set: MAIL_DSN=off sends no mail (production refuses that)",
    ]


@pytest.mark.parametrize("workers", ["1", "4"])
def test_run_tells_all_mistakes_at_once_and_ends(workers: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"PORT=x\nREDIS_DSN=redis://cache/not-a-number\nWEB_CONCURRENCY={workers}\n")
    code, said = said_by(["manage.py", "run"], tmp_path)
    names = [line.split()[0].strip(":") for line in said.splitlines()[1:]]
    assert (code, names) == (1, ["PORT", "REDIS_DSN", "POSTGRES_DSN", "MONGODB_DSN"])


def test_a_number_of_processes_that_is_none_is_a_mistake_as_any_other(tmp_path: Path) -> None:
    code, said = said_by(["manage.py", "run"], tmp_path, WEB_CONCURRENCY="four")
    assert (code, said.splitlines()[1].partition(":")[0]) == (1, "  WEB_CONCURRENCY")


def test_a_missing_dsn_is_one_line_for_uvicorn_too(tmp_path: Path) -> None:
    code, said = said_by(STARTS[0], tmp_path, POSTGRES_DSN="postgresql://app@db/app")
    assert (code, [line.partition(".")[0] for line in said.splitlines()]) == (
        1,
        ["REDIS_DSN is not set", "MONGODB_DSN is not set"],
    )


def test_the_example_lists_every_setting_with_its_default() -> None:
    example = (Path(__file__).parents[3] / ".env.example").read_text()
    listed = dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    assert set(listed) == {name.upper() for name in Settings.model_fields}
    from_example = make(**{name.lower(): value for name, value in listed.items() if value})
    dsns = {"postgres_dsn", "redis_dsn", "mongodb_dsn"}
    assert from_example.model_dump(exclude=dsns) == make().model_dump(exclude=dsns)
