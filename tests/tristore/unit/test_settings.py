"""Settings: what production refuses, and what never shows."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from tristore.settings import MissingDSN, TristoreSettings, WrongSettings, load
from tristore.stores.stores import open_stores

PASSWORD = "s3cr3t-of-the-database"
SAFE: dict[str, Any] = {
    "environment": "production",
    "postgres_dsn": f"postgresql://app:{PASSWORD}@db/app?sslmode=require",
    "redis_dsn": f"rediss://:{PASSWORD}@cache/0",
    "mongodb_dsn": f"mongodb://app:{PASSWORD}@a,b:27018/?replicaSet=rs0&tls=true",
    "mail_dsn": "off",
}
MAIL: dict[str, Any] = {
    "mail_dsn": f"smtp://app:{PASSWORD}@mail.example.com",
    "mail_from": "Us <us@example.com>",
    "public_url": "https://app.example.com",
}


def make(**values: Any) -> TristoreSettings:
    return TristoreSettings(_env_file=None, **values)


def test_a_safe_production_is_accepted() -> None:
    assert make(**SAFE).dsn("postgres_dsn") == f"postgresql+asyncpg://app:{PASSWORD}@db/app?sslmode=require"


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


@pytest.mark.parametrize("token", ["9f2c1b7a04d5e86", "changemechangeme", "x" * 40])
def test_a_metrics_token_that_can_be_guessed_is_refused_in_production(token: str) -> None:
    with pytest.raises(ValidationError, match="METRICS_TOKEN is shorter than 16"):
        make(**SAFE, metrics_token=token)
    make(**SAFE, metrics_token="9f2c1b7a04d5e861")


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


def test_production_reads_the_password_of_every_form() -> None:
    make(
        **SAFE | {"postgres_dsn": f"postgresql://app:{PASSWORD}@a,b:5433/app?target_session_attrs=any&sslmode=require"}
    )
    make(**SAFE | {"postgres_dsn": f"postgresql://a,b/app?user=app&password={PASSWORD}&sslmode=require"})
    for password in ("changeme", "%63hangeme", ""):
        with pytest.raises(ValidationError, match="POSTGRES_DSN has"):
            make(**SAFE | {"postgres_dsn": f"postgresql://app:{password}@a,b:5433/app"})


@pytest.mark.parametrize("value", [["*"], ["proxy.example.com"], ["10.0.0.1/8"]])
def test_a_proxy_that_is_no_address_is_refused_by_name(value: list[str]) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        make(trusted_proxies=value)


def test_the_product_adds_passwords_that_production_refuses() -> None:
    class Settings(TristoreSettings):
        known_passwords: ClassVar = frozenset({"of-the-product"})

    unsafe: dict[str, Any] = SAFE | {"redis_dsn": "rediss://:of-the-product@cache/0"}
    assert TristoreSettings(_env_file=None, **unsafe).environment == "production"
    with pytest.raises(ValidationError, match="REDIS_DSN has a well-known password"):
        Settings(_env_file=None, **unsafe)


def test_secrets_are_read_from_files_and_count_for_more_than_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "POSTGRES_DSN").write_text("postgresql://app@of-the-secret/app\n")
    (tmp_path / "redis_dsn").write_text("redis://of-the-secret/0")
    (tmp_path / ".env").write_text("POSTGRES_DSN=\nREDIS_DSN=redis://of-the-env-file/0\nAPP_NAME=x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_DSN", "redis://of-the-environment/0")
    settings = load(TristoreSettings)
    assert settings.dsn("postgres_dsn") == "postgresql+asyncpg://app@of-the-secret/app"
    assert settings.dsn("redis_dsn") == "redis://of-the-environment/0"
    assert settings.app_name == "x"


@pytest.mark.parametrize(
    ("dsn", "problem"),
    [
        ({"redis_dsn": "rediss://:elevenchars@cache/0"}, "REDIS_DSN has a password of fewer than 12"),
        ({"redis_dsn": "rediss://:mysecretpassword@cache/0"}, "REDIS_DSN has a password that few guesses would find"),
        (
            {"postgres_dsn": "postgresql://application1:application1@db/?ssl=require"},
            "POSTGRES_DSN has a password that few",
        ),
        ({"redis_dsn": f"rediss://:elevenchars@cache/0?password={PASSWORD}"}, "REDIS_DSN has a password of fewer"),
        (
            {"redis_dsn": f"rediss+sentinel://:{PASSWORD}@a/main?sentinel_password=elevenchars"},
            "REDIS_DSN has a password",
        ),
        ({"redis_dsn": f"redis://:{PASSWORD}@cache/0"}, "REDIS_DSN has no TLS"),
        ({"redis_dsn": f"redis+sentinel://:{PASSWORD}@a,b/main"}, "REDIS_DSN has no TLS"),
        ({"redis_dsn": f"redis+sentinel://:{PASSWORD}@127.0.0.1/main"}, "REDIS_DSN has no TLS"),
        ({"redis_dsn": f"redis+cluster://:{PASSWORD}@localhost"}, "REDIS_DSN has no TLS"),
        ({"postgres_dsn": f"postgresql://app:{PASSWORD}@db/app?sslmode=prefer"}, "POSTGRES_DSN has no TLS"),
        ({"postgres_dsn": f"postgresql://app:{PASSWORD}@127.0.0.1,db/app"}, "POSTGRES_DSN has no TLS"),
        ({"mongodb_dsn": f"mongodb://app:{PASSWORD}@db/"}, "MONGODB_DSN has no TLS"),
        ({"mongodb_dsn": f"mongodb://app:{PASSWORD}@localhost/?replicaSet=rs0"}, "MONGODB_DSN has no TLS"),
        ({"mongodb_dsn": f"mongodb+srv://app:{PASSWORD}@db.example/?tls=false"}, "MONGODB_DSN has no TLS"),
    ],
)
def test_production_wants_long_passwords_and_tls_unless_the_network_is_trusted(
    dsn: dict[str, str], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        make(**SAFE | dsn)
    make(**SAFE | dsn | {next(iter(dsn)).replace("dsn", "trusted_network"): True})


@pytest.mark.parametrize(
    "dsn",
    [
        "redis://:changeme@cache/0",
        "redis://:Change-Me@cache/0",
        f"redis://:redis@cache/0?password={PASSWORD}",  # redis-py takes the first one
        "rediss+sentinel://a/main?sentinel_password=redis",
    ],
)
def test_a_trusted_network_does_not_excuse_a_well_known_password(dsn: str) -> None:
    with pytest.raises(ValidationError, match="REDIS_DSN has a well-known password"):
        make(**SAFE | {"redis_dsn": dsn}, redis_trusted_network=True)


@pytest.mark.parametrize(
    "dsn",
    [
        {"redis_dsn": f"redis://:{PASSWORD}@[::1]:6379/0"},
        {"redis_dsn": f"unix:///run/redis?password={PASSWORD}"},
        {"redis_dsn": f"rediss+sentinel://:{PASSWORD}@a,b/main?sentinel_password={PASSWORD}"},
        {"redis_dsn": f"rediss+cluster://:{PASSWORD}@a,b"},
        {"postgres_dsn": f"postgresql://app:{PASSWORD}@/app?host=/run/postgresql"},
        {"mongodb_dsn": f"mongodb://app:{PASSWORD}@127.0.0.2:27018/?directConnection=true"},
        {"trusted_proxies": ["10.0.0.0/8", "fc00::/7", "2606:4700::/32", "::ffff:10.0.0.0/104"]},
    ],
)
def test_production_takes_tls_and_needs_none_within_a_machine(dsn: dict[str, str]) -> None:
    make(**SAFE | dsn)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"trusted_proxies": ["0.0.0.0/0"]}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ["10.0.0.0/8", "::/0"]}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ["0.0.0.0/1", "128.0.0.0/1"]}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ["128.0.0.0/2"]}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ["2000::/3"]}, "TRUSTED_PROXIES"),  # all of today's Internet
        ({"trusted_proxies": ["::ffff:0:0/96"]}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ["::/64"]}, "TRUSTED_PROXIES"),
        ({"cors_origins": ["null"], "cors_allow_credentials": True}, "CORS_ORIGINS has null"),
        ({"sql_echo": True}, "SQL_ECHO"),
    ],
)
def test_production_refuses_what_is_for_development(values: dict[str, Any], problem: str) -> None:
    assert make(**values).environment == "local"
    with pytest.raises(ValidationError, match=problem):
        make(**SAFE | values)


def test_production_refuses_to_count_nothing() -> None:
    class Settings(TristoreSettings):
        rate_limit_one: str = "1/hour"
        rate_limit_other: str = ""

    assert Settings(_env_file=None, **SAFE).rate_limit_one
    with pytest.raises(ValidationError, match="RATE_LIMIT"):
        Settings(_env_file=None, **SAFE, rate_limit_one="")


def test_production_needs_to_be_told_of_mail() -> None:
    assert make(**SAFE).mail_server is None
    server = make(**SAFE | MAIL).mail_server
    assert server
    assert (server.scheme, server.hosts, server.password) == ("smtp", "mail.example.com", PASSWORD)
    assert PASSWORD not in repr(make(**SAFE | MAIL))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"mail_dsn": ""}, "MAIL_DSN is not set: MAIL_DSN=off sends no mail"),
        ({"mail_dsn": "smtp://app:changeme@mail.example.com"}, "MAIL_DSN has a well-known password"),
        ({"mail_dsn": "smtp://mail.example.com?starttls=never"}, "MAIL_DSN has starttls=never"),
        ({"public_url": ""}, "PUBLIC_URL is not set"),
        ({"public_url": "http://app.example.com"}, "PUBLIC_URL is not set, or not https"),
        ({"mail_from": "Us us@example.com, b@example.com"}, "mail_from"),
        ({"mail_dsn": "http://mail.example.com"}, "must start with smtp:// or smtps://"),
    ],
)
def test_production_refuses_mail_that_is_not_safe(change: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        make(**SAFE | MAIL | change)


def test_production_wants_a_sender() -> None:
    with pytest.raises(ValidationError, match="MAIL_FROM is not set"):
        make(**SAFE | {name: value for name, value in MAIL.items() if name != "mail_from"})


def test_a_developers_machine_keeps_mail_and_tests_send_none(tmp_path: Path) -> None:
    local = make(environment="local", data_dir=tmp_path)
    assert (local.mail_server, local.mail_folder) == (None, tmp_path / "mail")
    assert make(environment="local", mail_dsn="off").mail_folder is None
    tests = make(environment="test")
    assert (tests.mail_server, tests.mail_folder) == (None, None)


@pytest.mark.parametrize(
    ("url", "base"), [("https://a.example/api/", "https://a.example/api"), ("", "http://127.0.0.1:80")]
)
def test_links_lead_where_the_setting_says(url: str, base: str) -> None:
    assert make(public_url=url, port=80).link_base == base


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"PORT": "x", "MONGODB_DSN": "postgres://x", "SQL_ECHO": "true", "ENVIRONMENT": "production"}
    for name, value in (given | {"REDIS_DSN": SAFE["redis_dsn"], "POSTGRES_DSN": ""}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettings) as caught:
        load(TristoreSettings)
    assert [mistake.split()[0] for mistake in caught.value.mistakes] == [
        *("PORT:", "MONGODB_DSN:", "POSTGRES_DSN", "MAIL_DSN", "SQL_ECHO"),
    ]
    assert caught.value.production
    monkeypatch.setenv("ENVIRONMENT", "test")
    with pytest.raises(WrongSettings) as caught:
        load(TristoreSettings, complete=True)
    assert [mistake.split()[0] for mistake in caught.value.mistakes] == ["PORT:", "MONGODB_DSN:", "POSTGRES_DSN"]
    assert not caught.value.production
