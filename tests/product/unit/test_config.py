"""Settings: what production refuses, and what never shows."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import Settings, get_settings
from tristore.settings import MissingDSN
from tristore.stores.stores import open_stores

PROJECT = Path(__file__).parents[3]

PASSWORD = "s3cr3t-of-the-database"
SAFE: dict[str, Any] = {
    "environment": "production",
    "postgres_dsn": f"postgresql://app:{PASSWORD}@db/app",
    "redis_dsn": f"redis://:{PASSWORD}@cache/0",
    "mongodb_dsn": f"mongodb://app:{PASSWORD}@a,b:27018/?replicaSet=rs0",
}


def make(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def test_a_safe_production_is_accepted() -> None:
    assert make(**SAFE).dsn("postgres_dsn") == f"postgresql+asyncpg://app:{PASSWORD}@db/app"


def test_production_lists_everything_that_is_wrong_in_one_message() -> None:
    with pytest.raises(ValidationError) as caught:
        make(
            environment="production",
            redis_dsn="redis://cache/0",
            mongodb_dsn="mongodb://root:changeme@db",
            cors_origins=["*"],
            cors_allow_credentials=True,
        )
    message = str(caught.value)
    for problem in (
        "POSTGRES_DSN is not set",
        "REDIS_DSN has no password",
        "MONGODB_DSN has a well-known password",
        "CORS_ORIGINS has a wildcard",
    ):
        assert problem in message
    assert "changeme" not in message


@pytest.mark.parametrize("name", ["postgres_dsn", "redis_dsn", "mongodb_dsn"])
def test_production_refuses_a_missing_dsn(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name.upper()} is not set"):
        make(**SAFE | {name: ""})


def test_no_password_shows_in_a_repr_or_an_error() -> None:
    assert PASSWORD not in repr(make(**SAFE))
    with pytest.raises(ValidationError) as caught:
        make(**SAFE | {"postgres_dsn": f"mysql://app:{PASSWORD}@db", "port": "x"})
    assert PASSWORD not in str(caught.value)
    assert "postgres_dsn" in str(caught.value)
    assert "port" in str(caught.value)


async def test_no_password_shows_in_the_repr_of_what_is_opened() -> None:
    async with open_stores(make(**SAFE)) as stores:
        assert PASSWORD not in repr(stores)


def test_a_short_metrics_token_is_refused_in_production() -> None:
    with pytest.raises(ValidationError, match="METRICS_TOKEN is shorter than 16"):
        make(**SAFE, metrics_token="x" * 15)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_limit_requests", "often"),
        ("rate_limit_registration", "10"),
        ("rate_limit_sign_in_account", "10/moon"),
        ("rate_limit_sign_in_address", "0x1/minute"),
        ("trusted_proxies", ["*"]),
        ("trusted_proxies", ["proxy.example.com"]),
        ("trusted_proxies", ["10.0.0.1/8"]),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        make(**{name: value})


def test_a_missing_dsn_says_which_and_what_to_do() -> None:
    with pytest.raises(MissingDSN, match="MONGODB_DSN is not set.*make run.*docker compose up"):
        make().dsn("mongodb_dsn")


@pytest.mark.parametrize("written", ["https://a.example:8443, http://b", '["https://a.example:8443", "http://b"]'])
def test_lists_take_commas_and_json(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", written)
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8,::1")
    settings = make()
    assert (settings.cors_origins, settings.trusted_proxies) == (
        ["https://a.example:8443", "http://b"],
        ["10.0.0.0/8", "::1"],
    )


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "https://app.example.com/page", "//a"]
)
def test_an_origin_that_no_browser_sends_is_refused_with_the_cure(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"https://app.example.com: with a scheme.*not even a /.*at place 2"):
        make(cors_origins=f"*,{origin}")


def test_secrets_are_read_from_files_and_count_for_more_than_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "POSTGRES_DSN").write_text("postgresql://app@of-the-secret/app\n")
    (tmp_path / "redis_dsn").write_text("redis://of-the-secret/0")
    (tmp_path / ".env").write_text("POSTGRES_DSN=\nREDIS_DSN=redis://of-the-env-file/0\nAPP_NAME=x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_DSN", "redis://of-the-environment/0")
    get_settings.cache_clear()
    settings = get_settings()
    get_settings.cache_clear()
    assert settings.dsn("postgres_dsn") == "postgresql+asyncpg://app@of-the-secret/app"
    assert settings.dsn("redis_dsn") == "redis://of-the-environment/0"
    assert settings.app_name == "x"


STARTS = [["-m", "uvicorn", "main:app"], ["main.py"], ["manage.py", "migrate"], ["-m", "alembic", "current"]]
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
        "  refusing to start in production:",
        *(f"    {name}_DSN is not set" for name in ("POSTGRES", "REDIS", "MONGODB")),
    ]


def test_a_missing_dsn_is_one_line_for_uvicorn_too(tmp_path: Path) -> None:
    code, said = said_by(STARTS[0], tmp_path, POSTGRES_DSN="postgresql://app@db/app")
    assert (code, [line.partition(".")[0] for line in said.splitlines()]) == (
        1,
        ["REDIS_DSN is not set", "MONGODB_DSN is not set"],
    )


def test_production_reads_the_password_of_every_form() -> None:
    make(**SAFE | {"postgres_dsn": f"postgresql://app:{PASSWORD}@a,b:5433/app?target_session_attrs=any"})
    make(**SAFE | {"postgres_dsn": f"postgresql://a,b/app?user=app&password={PASSWORD}"})
    for password in ("changeme", "%63hangeme", ""):
        with pytest.raises(ValidationError, match="POSTGRES_DSN has"):
            make(**SAFE | {"postgres_dsn": f"postgresql://app:{password}@a,b:5433/app"})


def test_the_example_lists_every_setting_with_its_default() -> None:
    example = (Path(__file__).parents[3] / ".env.example").read_text()
    listed = dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    assert set(listed) == {name.upper() for name in Settings.model_fields}
    from_example = make(**{name.lower(): value for name, value in listed.items() if value})
    dsns = {"postgres_dsn", "redis_dsn", "mongodb_dsn"}
    assert from_example.model_dump(exclude=dsns) == make().model_dump(exclude=dsns)
