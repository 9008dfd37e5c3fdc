"""Names that look like settings and are none."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tristore.ops.misspelt import misspelt, warn_of_misspelt
from tristore.settings import TristoreSettings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POSTGRES_DSNN", "POSTGRES_DSN"),
        ("postgres_dns", "POSTGRES_DSN"),
        ("MONGO_DB_DSN", "MONGODB_DSN"),
        ("TRUSTED_PROXYS", "TRUSTED_PROXIES"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("TRISTORE_ENVIRONMENT", "ENVIRONMENT"),
        ("tristore_docs", "DOCS"),
        ("TRISTORE_COLOUR", None),
        ("MY_POSTGRES_REPLICA_DSN", "POSTGRES_REPLICA_DSN"),
        ("REDIS_URL", None),
        ("POSTGRES_USER", None),
        ("CACHE_SECONDS", None),
    ],
)
def test_what_looks_like_a_setting_is_told(name: str, meant: str | None) -> None:
    assert list(misspelt(TristoreSettings, [name], [])) == [(name, meant)]


@pytest.mark.parametrize(
    "name",
    [
        *("POSTGRES_DSN", "postgres_dsn", "PATH", "HOSTNAME", "LOGNAME", "SESSION_MANAGER", "WEB_CONCURRENCY"),
        *("REDIS_PORT_6379_TCP_ADDR", "REDIS_SERVICE_HOST", "POSTGRES_PASSWORD", "DATABASE_URL", "LC_ALL", "_"),
        *("TRISTORE_SERVICE_HOST", "TRISTORE_PORT_8000_TCP", "NODE_ENVIRONMENT", "MY_PORT", "OTEL_LOG_LEVEL"),
    ],
)
def test_what_is_a_setting_or_is_somebody_elses_is_not(name: str) -> None:
    assert list(misspelt(TristoreSettings, [name], [])) == []


def test_in_the_file_every_unknown_name_is_told() -> None:
    assert list(misspelt(TristoreSettings, [], ["PORT", "POSTGRES_PORT", "COLOUR"])) == [("COLOUR", None)]


def test_a_secrets_file_of_an_unknown_name_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "postgres_dns").write_text("postgresql://app@db/app")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    with capture_logs() as logs:
        warn_of_misspelt(TristoreSettings(_env_file=None, environment="test"))
    assert [(log["name"], log["meant"]) for log in logs if log["name"] == "postgres_dns"] == [
        ("postgres_dns", "POSTGRES_DSN")
    ]
