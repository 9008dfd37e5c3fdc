"""Each form of a DSN that .env.example shows connects to a server, with TLS where it asks for it, or is refused."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from tristore.errors import StoreUnavailable
from tristore.mail.transports import SmtpServer
from tristore.settings import TristoreSettings
from tristore.stores import mongodb, redis
from tristore.stores.dsn import read_smtp
from tristore.stores.postgres import connect, open_postgres
from tristore.testing.lab import PROJECT
from tristore.testing.mail import letter_box
from tristore.testing.stores import Servers, settings_on
from tristore.testing.tls import Authority, TlsFront, tls_in_front_of

EXAMPLE = (PROJECT / ".env.example").read_text()
ELSEWHERE = {
    "redis+sentinel": "tests/tristore/faults/test_sentinel.py",
    "rediss+sentinel": "tests/tristore/faults/test_sentinel.py",
    "redis+cluster": "tests/tristore/faults/test_redis_cluster.py",
    "rediss+cluster": "tests/tristore/faults/test_redis_cluster.py",
    "mongodb+srv": "tests/tristore/contract/test_srv.py",
}
"""What has a test of its own."""
HERE = {"postgresql", "redis", "rediss", "unix", "mongodb", "smtp", "smtps"}
NOT_A_DSN = {"http", "https"}
LOGIN = "{user}:{password}@"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.of(tmp_path_factory.mktemp("tls"))


def filled(form: str, dsn: str, authority: Authority, port: int, **more: object) -> str:
    """The form with the login and the database of a DSN that leads to the server itself."""
    of = urlsplit(dsn)
    files = {"ca": authority.ca, "cert": authority.cert, "key": authority.key}
    return form.format(
        user=of.username, password=of.password, port=port, path=of.path.lstrip("/"), query=of.query, **files, **more
    )


def test_each_scheme_of_the_example_is_tried() -> None:
    shown = set(re.findall(r"([a-z+]+)://", EXAMPLE)) - NOT_A_DSN
    assert shown == HERE | ELSEWHERE.keys()
    for scheme, path in ELSEWHERE.items():
        assert scheme.partition("+")[2] in (PROJECT / path).read_text()


def test_each_mode_and_option_of_postgresql_that_the_example_names_is_tried() -> None:
    modes = set(re.findall(r"\b(disable|allow|prefer|require|verify-\w+)\b", EXAMPLE))
    options = {
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "target_session_attrs",
        "host",
        "port",
        "user",
        "password",
    }
    options |= {"dbname", "application_name", "options", "connect_timeout", "channel_binding"}
    options |= {"statement_cache_size", "prepared_statement_cache_size"}
    tried = " ".join([*(form for form, _ in POSTGRESQL), *AT_A_SOCKET])
    assert not {word for word in modes | options if word not in tried}
    assert not {word for word in options if word not in EXAMPLE}


# POSTGRESQL

A_HOST = f"postgresql://{LOGIN}127.0.0.1:{{port}}/{{path}}"
POSTGRESQL = [
    (A_HOST, {"tls"}),  # prefer, as libpq has it
    (f"{A_HOST}?sslmode=disable", {"plain"}),
    (f"{A_HOST}?sslmode=allow", {"plain"}),
    (f"{A_HOST}?sslmode=prefer", {"tls"}),
    (f"{A_HOST}?sslmode=require", {"tls"}),
    (f"{A_HOST}?sslmode=verify-ca&sslrootcert={{ca}}", {"tls"}),
    (f"{A_HOST}?sslmode=verify-full&sslrootcert={{ca}}", {"tls"}),
    (f"{A_HOST}?sslmode=verify-full&sslrootcert={{ca}}&sslcert={{cert}}&sslkey={{key}}", {"tls", "certificate"}),
    (f"{A_HOST}?sslmode=verify-full&sslrootcert=system", {"refused"}),
    (f"postgresql://{LOGIN}127.0.0.1:1,127.0.0.1:{{port}}/{{path}}?sslmode=require", {"tls"}),
    (f"postgresql://{LOGIN}127.0.0.1:1,127.0.0.1:{{port}}/{{path}}?target_session_attrs=any", {"tls"}),
    (f"{A_HOST}?connect_timeout=3&channel_binding=prefer&application_name=theirs", {"tls"}),
    (f"{A_HOST}?statement_cache_size=0&prepared_statement_cache_size=0", {"tls"}),
    (f"{A_HOST}?sslmode=verify-none", {"sslmode"}),
    (f"{A_HOST}?sslmod=require", {"sslmod"}),
]
"""A form, and how the server was connected to. Or "refused", or what Settings names."""
AT_A_SOCKET = [
    f"postgresql://{LOGIN}/{{path}}?host={{folder}}",
    "postgresql:///?host={folder}&port=5432&user={user}&password={password}&dbname={path}&options=-c%20work_mem%3D1MB",
]


async def seen_by_postgresql(settings: TristoreSettings, front: TlsFront) -> set[str]:
    async with open_postgres(settings) as postgres:
        try:
            async with connect(postgres.reads) as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
        except StoreUnavailable:
            return {"refused"}
    return set(+front.seen)


def made(servers: Servers, **values: object) -> TristoreSettings:
    patient = {
        "postgres_connect_timeout": 10,
        "postgres_request_deadline": 15,
        "redis_timeout": 10,
        "mongodb_timeout": 10,
    }
    return settings_on(servers, TristoreSettings, **patient | values)


@pytest.mark.parametrize(("form", "expected"), POSTGRESQL)
async def test_forms_of_postgresql(servers: Servers, authority: Authority, form: str, expected: set[str]) -> None:
    server = servers["postgresql"]
    async with tls_in_front_of(server.port, authority.context, postgresql=True) as front:
        dsn = filled(form, server.dsn, authority, front.port)
        if not expected <= {"tls", "plain", "certificate", "refused"}:
            with pytest.raises(ValueError, match=f"(?s)postgres_dsn.* {expected.pop()}"):
                made(servers, postgres_dsn=dsn)
            return
        assert await seen_by_postgresql(made(servers, postgres_dsn=dsn), front) == expected


async def test_the_machines_own_authorities_are_sslrootcert_system(
    servers: Servers, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    server = servers["postgresql"]
    async with tls_in_front_of(server.port, authority.context, postgresql=True) as front:
        dsn = filled(f"{A_HOST}?sslmode=verify-full&sslrootcert=system", server.dsn, authority, front.port)
        assert await seen_by_postgresql(made(servers, postgres_dsn=dsn), front) == {"tls"}


@pytest.mark.parametrize("form", AT_A_SOCKET)
async def test_forms_of_postgresql_at_a_socket(
    servers: Servers, authority: Authority, tmp_path_factory: pytest.TempPathFactory, form: str
) -> None:
    server, folder = servers["postgresql"], tmp_path_factory.mktemp("s")
    socket = folder / ".s.PGSQL.5432"
    async with tls_in_front_of(server.port, authority.context, postgresql=True, socket=socket) as front:
        dsn = filled(form, server.dsn, authority, 5432, folder=folder)
        assert await seen_by_postgresql(made(servers, postgres_dsn=dsn), front) == {"plain"}


async def test_a_server_without_tls_is_refused_by_who_asks_for_it(servers: Servers, authority: Authority) -> None:
    server = servers["postgresql"]
    dsn = filled(f"{A_HOST}?sslmode=require", server.dsn, authority, server.port)
    async with open_postgres(made(servers, postgres_dsn=dsn)) as postgres:
        with pytest.raises(StoreUnavailable):
            async with connect(postgres.reads):
                pass


# REDIS

REDIS_AT = f"redis://{LOGIN}127.0.0.1:{{port}}/{{path}}"
REDIS_TLS = REDIS_AT.replace("redis", "rediss", 1)
REDIS = [
    (REDIS_AT, {"plain"}),
    (f"{REDIS_TLS}?ssl_ca_certs={{ca}}", {"tls"}),
    (f"{REDIS_TLS}?ssl_ca_certs={{ca}}&ssl_certfile={{cert}}&ssl_keyfile={{key}}", {"tls", "certificate"}),
    (f"{REDIS_TLS}?ssl_cert_reqs=none", {"tls"}),
    (REDIS_TLS, {"refused"}),
]


@asynccontextmanager
async def in_front(port: int, authority: Authority, dsn: str) -> AsyncIterator[TlsFront]:
    """Of a server without TLS, or with it, as the DSN says."""
    context = authority.context if re.match(r"rediss|smtps|.*tls=true", dsn) else None
    async with tls_in_front_of(port, context) as front:
        yield front


@pytest.mark.parametrize(("form", "expected"), REDIS)
async def test_forms_of_redis(servers: Servers, authority: Authority, form: str, expected: set[str]) -> None:
    server = servers["redis"]
    async with in_front(server.port, authority, form) as front:
        dsn = filled(form, server.dsn, authority, front.port)
        assert await seen_by_redis(made(servers, redis_dsn=dsn), front) == expected


async def test_redis_at_a_socket(
    servers: Servers, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server, socket = servers["redis"], tmp_path_factory.mktemp("s") / "redis.sock"
    async with tls_in_front_of(server.port, None, socket=socket) as front:
        dsn = filled("unix://{user}:{password}@{socket}", server.dsn, authority, 0, socket=socket)
        assert await seen_by_redis(made(servers, redis_dsn=dsn), front) == {"plain"}


async def seen_by_redis(settings: TristoreSettings, front: TlsFront) -> set[str]:
    async with redis.open_redis(settings) as store:
        try:
            await redis.ping(store)
        except StoreUnavailable:
            return {"refused"}
    return set(+front.seen)


# MONGODB

MONGODB = [
    ("mongodb://{user}:{password}@127.0.0.1:{port}/{path}?{query}", {"plain"}),
    ("mongodb://{user}:{password}@127.0.0.1:{port}/{path}?directConnection=true&authSource=admin", {"plain"}),
    ("mongodb://{user}:{password}@127.0.0.1:{port}/?tls=true&tlsCAFile={ca}&directConnection=true", {"tls"}),
    ("mongodb://{user}:{password}@127.0.0.1:{port}/?tls=true&directConnection=true", {"refused"}),
]


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize(("form", "expected"), MONGODB)
async def test_forms_of_mongodb(
    servers: Servers, authority: Authority, driver: str, form: str, expected: set[str]
) -> None:
    server = servers["mongodb"]
    async with in_front(server.port, authority, form) as front:
        dsn = filled(form, server.dsn, authority, front.port)
        seconds = 2 if expected == {"refused"} else 10
        settings = made(servers, mongodb_dsn=dsn, mongodb_driver=driver, mongodb_timeout=seconds)
        async with mongodb.open_mongodb(settings) as store:
            try:
                await mongodb.ping(store)
                await store.database.probes.find_one({})
            except StoreUnavailable:
                assert expected == {"refused"}
            else:
                assert set(+front.seen) == expected


# MAIL

SMTP = [
    ("smtp://{user}:{password}@127.0.0.1:{port}", {"starttls"}),
    ("smtp://127.0.0.1:{port}?starttls=never", set()),
    ("smtps://{user}:{password}@127.0.0.1:{port}", {"tls"}),
]


@pytest.mark.parametrize(("form", "expected"), SMTP)
async def test_forms_of_the_mail_server(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, form: str, expected: set[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    message = EmailMessage()
    message["To"] = "ana@example.com"
    async with letter_box(authority.context) as box, in_front(box.port, authority, form) as front:
        port = front.port if "tls" in expected else box.port
        server = SmtpServer(read_smtp(form.format(user="us", password="s3cret", port=port)), "app.example.org")
        await server.send(message, "us@example.org", "ana@example.com")
    assert box.logins == ([("us", "s3cret")] if "{user}" in form else [])
    assert (box.over_tls, front.seen["tls"]) == ("starttls" in expected, "tls" in expected)
    assert len(box.mails) == 1
