"""DSNs: what libpq's users paste works, what is wrong is named, and no message holds a value."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tristore.errors import StoreUnavailable
from tristore.settings import DsnField, TristoreSettings
from tristore.stores.dsn import asyncpg_arguments
from tristore.stores.postgres import connect, open_postgres
from tristore.testing.stores import Servers, own_databases

ENCODE = "write it as %2F, %3F, %23 or %40"


def make(**values: Any) -> TristoreSettings:
    return TristoreSettings(_env_file=None, **values)


def arguments(dsn: str) -> dict[str, Any]:
    [given] = asyncpg_arguments(make(postgres_dsn=dsn).dsn("postgres_dsn"))
    return given


@pytest.mark.parametrize(
    ("dsn", "as_given"),
    [
        ("postgres://app:p%2Fw@db/app", "postgresql://app:p%2Fw@db/app"),
        ("postgresql+asyncpg://app@127.0.0.1:5432/app", "postgresql://app@127.0.0.1:5432/app"),
        ("postgresql://app:p[:%25@[::1]:5432/app", "postgresql://app:p%5B%3A%25@[::1]:5432/app"),
        ("postgresql://app@/app?host=/run/postgresql", "postgresql://app@/app?host=%2Frun%2Fpostgresql"),
        ("postgresql://app@elsewhere/app?host=db&dbname=b", "postgresql://app@/b?host=db"),
        ("postgresql:///app?user=u&password=p%40", "postgresql://u:p%40@/app"),
        ("postgresql://app@db", "postgresql://app@db"),
        ("postgresql://app@db/?ssl=require", "postgresql://app@db?sslmode=require"),
        ("postgresql://app@db/app?sslmode=allow&channel_binding=require&connect_timeout=10",
         "postgresql://app@db/app?sslmode=allow"),
        ("postgresql://app@db/app?application_name=x&options=-c%20geqo%3Doff",
         "postgresql://app@db/app?application_name=x&options=-c%20geqo%3Doff"),
    ],
)  # fmt: skip
def test_what_users_of_libpq_and_sqlalchemy_write_reaches_asyncpg(dsn: str, as_given: str) -> None:
    assert arguments(dsn) == {"dsn": as_given}


def test_sizes_of_caches_and_ports_are_numbers_for_asyncpg() -> None:
    sizes = {"prepared_statement_cache_size": 0, "statement_cache_size": 0}
    given = arguments("postgresql://app@a?port=1&prepared_statement_cache_size=0&statement_cache_size=0")
    assert given == {**sizes, "port": 1, "dsn": "postgresql://app@a"}


@pytest.mark.parametrize(
    ("dsn", "given"),
    [
        ("a,b:5433/app", [{"dsn": "a/app?{rw}"}, {"dsn": "b:5433/app?{rw}"}]),
        ("a,b/app?target_session_attrs=any", [{"dsn": f"{host}/app?target_session_attrs=any"} for host in "ab"]),
        ("a,[::1]:2/app?port=1,3", [{"dsn": "a/app?{rw}", "port": 1}, {"dsn": "[::1]:2/app?{rw}", "port": 3}]),
        ("x/app?host=a,b&port=1", [{"dsn": f"/app?host={host}&{{rw}}", "port": 1} for host in "ab"]),
    ],
)
def test_each_host_is_connected_to_by_itself_and_must_take_writes(dsn: str, given: list[dict[str, Any]]) -> None:
    for one in given:
        one["dsn"] = "postgresql://app@" + one["dsn"].format(rw="target_session_attrs=read-write")
    assert asyncpg_arguments(make(postgres_dsn=f"postgresql://app@{dsn}").dsn("postgres_dsn")) == given


def test_the_systems_certificates_verify_the_hosts_name() -> None:
    given = arguments("postgresql://app@db?sslmode=verify-full&sslrootcert=system")
    assert given["dsn"] == "postgresql://app@db?sslmode=verify-full"
    assert (given["ssl"].check_hostname, given["ssl"].verify_mode) == (True, ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    ("name", "dsn", "says"),
    [
        ("postgres_dsn", "mysql://app:s3cr3t@db", "must start with postgresql://"),
        ("postgres_dsn", "postgresql://app:s3/cr3t@db/app", ENCODE),
        ("postgres_dsn", "postgresql://app:s3?cr3t@db/app", ENCODE),
        ("postgres_dsn", "postgresql://app:s3#cr3t@db/app", ENCODE),
        ("postgres_dsn", "postgresql://app:s3@cr3t@db/app", "bare @ .* write it as %40"),
        ("postgres_dsn", "postgresql://app:s3 cr3t@db/app", "a space or a line break"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app\n", "a space or a line break"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db:s3cr3t/app", "no host, or host:port"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db:65536/app", "no host, or host:port"),
        ("postgres_dsn", "postgresql://app:s3cr3t@a,,b/app", "no host, or host:port"),
        ("postgres_dsn", "postgresql://app:s3cr3t@a,b,c/app?port=1,2", "another number of ports"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app?sslmod=s3cr3t", "option sslmod that is unknown. Known are s"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app?sslmode=s3cr3t", "sslmode .* takes disable, allow, prefer"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app?connect_timeout=s3cr3t", "connect_timeout .* takes a number"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app?target_session_attrs=standby", "takes any, read-write, prim"),
        ("postgres_dsn", "postgresql://app@db/app?password=x&s3cr3t=y", "has an option that is unknown"),
        ("postgres_dsn", "postgresql://app:s3cr3t@db/app?s3cr3t", "not of the form name=value"),
        ("postgres_dsn", "postgresql://app@db?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgres_dsn", "postgresql://app@db?sslrootcert=/s3cr3t", "file in sslrootcert, sslcert or sslkey"),
        ("postgres_dsn", f"postgresql://app@db?sslcert={__file__}", "file in sslrootcert, sslcert or sslkey"),
        ("redis_dsn", "http://:s3cr3t@cache", "must start with redis://"),
        ("redis_dsn", "redis://:s3/cr3t@cache/0", ENCODE),
        ("redis_dsn", "redis://:s3[cr3t@cache/0", "write it as %5B"),
        ("redis_dsn", "redis://:s3cr3t@cache/s3cr3t", "database's number"),
        ("redis_dsn", "redis://:s3cr3t@a,b/0", "several hosts"),
        ("redis_dsn", "redis+sentinel://:s3cr3t@a,b:1/", "no name of a primary"),
        ("redis_dsn", "redis+sentinel://:s3cr3t@a,b:1/main/s3cr3t", "no name of a primary"),
        ("redis_dsn", "redis+cluster://:s3cr3t@a,b:1/1", "a cluster has no more than 0"),
        ("redis_dsn", "redis+cluster://:s3cr3t@a,b:1?db=3", "a cluster has no more than 0"),
        ("redis_dsn", "redis+cluster://:s3cr3t@a,b:1/s3cr3t", "a cluster has no more than 0"),
        ("redis_dsn", "redis+cluster://:s3cr3t@:1", "no name of a host"),
        ("redis_dsn", "redis+cluster://", "no name of a host"),
        ("redis_dsn", "redis://:s3cr3t@a/0?sentinel_password=s3cr3t", "option sentinel_password that is unknown"),
        ("redis_dsn", "redis://:s3cr3t@cache/0?max_connections=3", "option max_connections that is unknown"),
        ("redis_dsn", "redis://:s3cr3t@cache/0?ssl_cert_reqs=none", "option ssl_cert_reqs that is unknown"),
        ("redis_dsn", "redis+cluster://:s3cr3t@a?ssl_ca_certs=/x", "option ssl_ca_certs that is unknown"),
        ("redis_dsn", "rediss+cluster://:s3cr3t@a?sentinel_password=x", "option sentinel_password that is unknown"),
        ("redis_dsn", "rediss://:s3cr3t@cache/0?ssl_ca_certs=/s3cr3t", "file in ssl_ca_certs, ssl_certfile or ssl_k"),
        ("redis_dsn", "rediss+sentinel://:s3cr3t@a/main?ssl_ca_path=/s3cr3t", "ssl_ca_path that is no folder"),
        ("redis_dsn", f"rediss+cluster://:s3cr3t@a?ssl_certfile={__file__}", "file in ssl_ca_certs, ssl_certfile or"),
        ("redis_dsn", "rediss+cluster://:s3cr3t@a?ssl_keyfile=/s3cr3t", "ssl_keyfile without ssl_certfile"),
        ("mongodb_dsn", "mongo://app:s3cr3t@db", "must start with mongodb://"),
        ("mongodb_dsn", "mongodb://app:s3/cr3t@db", ENCODE),
        ("mongodb_dsn", "mongodb://app:s3+cr3t@db", r"bare \+ .* write it as %2B"),
        ("mongodb_dsn", "mongodb://app:s3%cr3t@db", "not encoded"),
        ("mongodb_dsn", "mongodb://app:s3cr3t@db/?replica=s3cr3t", "option replica that is unknown"),
        ("mongodb_dsn", "mongodb://app:s3cr3t@db/?tls=s3cr3t", "option tls that is unknown, or has a value"),
        ("mongodb_dsn", "mongodb://app:s3cr3t@a,b/?directConnection=true", "exclude each other"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_dsn_is_named_without_a_value(name: DsnField, dsn: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make(**{name: dsn})
    assert name in str(caught.value)
    assert not [part for part in ("s3", "cr3t") if part in str(caught.value).replace(ENCODE, "")]


def test_certificates_that_only_the_users_home_could_have_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(ValueError, match="sslmode=verify-ca without sslrootcert"):
        arguments("postgresql://app@db?sslmode=verify-ca")


@pytest.mark.parametrize(
    ("name", "dsn"),
    [
        ("redis_dsn", "redis://:p@:w@cache:6379/0"),
        ("redis_dsn", "rediss://app:pw@cache/1?ssl_cert_reqs=none"),
        ("redis_dsn", "unix:///run/redis.sock?db=1"),
        ("redis_dsn", "redis+sentinel://app:pw@a,b:26380/main/1?sentinel_password=p"),
        ("redis_dsn", "redis+cluster://app:pw@a,[::1]:7001"),
        ("redis_dsn", "redis+cluster://:p[w@a,b"),  # redis-py is handed one host, and the password encoded
        ("redis_dsn", "rediss+cluster://app:pw@a:7001,b/0?ssl_cert_reqs=none"),
        ("mongodb_dsn", "mongodb://app:p%2Fw@a,b:27018/?replicaSet=rs0&readPreferenceTags=a:b"),
        ("mongodb_dsn", "mongodb+srv://app:pw@db.example.com/?retryWrites=true"),
        ("mongodb_dsn", "mongodb://%2Frun%2Fmongodb.sock"),
    ],
)
def test_forms_of_the_other_stores_are_handed_on_as_they_are(name: DsnField, dsn: str) -> None:
    assert make(**{name: dsn}).dsn(name) == dsn


async def test_the_second_host_is_taken_when_the_first_does_not_answer(settings: TristoreSettings) -> None:
    dsn = settings.dsn("postgres_dsn").replace("@", "@127.0.0.1:1,") + "?sslmode=prefer&application_name=theirs"
    elsewhere = make(postgres_dsn=dsn, postgres_connect_timeout=10, postgres_statement_timeout=7)
    async with open_postgres(elsewhere) as postgres, postgres.engine.connect() as connection:
        shown = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        assert tuple((await connection.execute(text(shown))).one()) == ("tristore-app", "7s")


async def test_hosts_that_all_take_no_writes_are_read_only_and_not_down(servers: Servers) -> None:
    async with own_databases(servers) as settings:
        dsn = f"{settings.dsn('postgres_dsn')}?target_session_attrs=read-write"
        async with open_postgres(settings) as postgres, postgres.engine.begin() as connection:
            name = dsn.rpartition("/")[2].partition("?")[0]
            await connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        async with open_postgres(make(postgres_dsn=dsn, postgres_connect_timeout=10)) as postgres:
            with pytest.raises(StoreUnavailable, match="read only"):
                async with connect(postgres.engine):
                    pass
