"""Names that look like settings and are none."""

import pytest

from tristore.ops.misspelt import misspelt
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
    ],
)
def test_what_is_a_setting_or_is_somebody_elses_is_not(name: str) -> None:
    assert list(misspelt(TristoreSettings, [name], [])) == []


def test_in_the_file_every_unknown_name_is_told() -> None:
    assert list(misspelt(TristoreSettings, [], ["PORT", "POSTGRES_PORT", "COLOUR"])) == [("COLOUR", None)]
