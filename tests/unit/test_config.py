"""Settings: what production refuses, and what never shows."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import MissingDSN, Settings
from database.stores import open_stores

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


def test_the_example_lists_every_setting_with_its_default() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    listed = dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    assert set(listed) == {name.upper() for name in Settings.model_fields}
    from_example = make(**{name.lower(): value for name, value in listed.items() if value and value != "[]"})
    dsns = {"postgres_dsn", "redis_dsn", "mongodb_dsn"}
    assert from_example.model_dump(exclude=dsns) == make().model_dump(exclude=dsns)
