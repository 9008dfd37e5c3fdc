"""What a store's DSN says. Messages name what is wrong, never a value: any part of a DSN may be part of a password."""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

MODES = "disable|allow|prefer|require|verify-ca|verify-full"
NUMBER, ANYTHING = r"\d+", ".+"
CACHE_SIZES = ("prepared_statement_cache_size", "statement_cache_size")

# Options, and what they take.
POSTGRES_OPTIONS = {
    "sslmode": MODES,
    "ssl": MODES,  # asyncpg's own name of it
    **dict.fromkeys(("sslrootcert", "sslcert", "sslkey"), ANYTHING),
    "target_session_attrs": "any|read-write|primary",
    "channel_binding": "disable|prefer|require",
    "connect_timeout": NUMBER,
    "port": rf"{NUMBER}(,{NUMBER})*",
    **dict.fromkeys(("host", "user", "password", "dbname", "application_name", "options"), ANYTHING),
    **dict.fromkeys(CACHE_SIZES, NUMBER),
}
REDIS_OPTIONS = {
    "db": NUMBER,
    "protocol": "2|3",
    "health_check_interval": NUMBER,
    **dict.fromkeys(("username", "password"), ANYTHING),
}
REDIS_TLS_OPTIONS = {
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "true|false|True|False",
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"), ANYTHING),
}
SENTINEL_OPTIONS = dict.fromkeys(("sentinel_username", "sentinel_password"), ANYTHING)
SMTP_OPTIONS = {"starttls": "always|never"}


@dataclass(frozen=True)
class Dsn:
    """User and password are decoded, hosts are as written: `host:port`, several with commas between."""

    scheme: str
    user: str
    password: str = field(repr=False)
    hosts: str
    path: str
    options: dict[str, str] = field(repr=False)


def read_postgres(text: str) -> Dsn:
    """What libpq's URIs may say, and SQLAlchemy's. Raises ValueError that says what is wrong."""
    dsn = _read(text, ("postgresql", "postgres", "postgresql+asyncpg"), encoded="@")
    _require_known(dsn.options, POSTGRES_OPTIONS)
    hosts = (dsn.options.get("host") or dsn.hosts).split(",")
    if len(dsn.options.get("port", "").split(",")) not in {1, len(hosts)}:
        raise ValueError("has another number of ports than of hosts")
    _require_tls_files(dsn.options)
    return dsn


def read_redis(text: str) -> Dsn:
    """Raises ValueError that says what is wrong."""
    forms = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
    dsn = _read(text, forms)
    tls = REDIS_TLS_OPTIONS if dsn.scheme.startswith("rediss") else {}
    _require_known(dsn.options, REDIS_OPTIONS | tls | (SENTINEL_OPTIONS if is_sentinel(dsn) else {}))
    _require_files_of_redis(dsn.options)
    if is_sentinel(dsn):
        if not re.fullmatch(r"[^/]+(/\d+)?", dsn.path):
            raise ValueError("has no name of a primary, such as /mymaster or /mymaster/0, after its hosts")
        return dsn
    if is_cluster(dsn):
        if dsn.path not in {"", "0"} or dsn.options.get("db", "0") != "0":
            raise ValueError("has a database's number, and a cluster has no more than 0: leave it out")
        if not all(_address(host)[0] for host in dsn.hosts.split(",")):
            raise ValueError("has no name of a host before a port, or none at all")
        return dsn
    if "," in dsn.hosts:
        raise ValueError(
            "names several hosts, and can lead to one only: only redis+sentinel:// and redis+cluster:// take more"
        )
    try:
        urlsplit(text)  # as redis-py does, which is handed one host of the forms above
    except ValueError:
        raise ValueError("has a bare [ or ]: write it as %5B or %5D") from None
    if dsn.scheme != "unix" and not re.fullmatch(r"\d*", dsn.path):
        raise ValueError("has something else than a database's number, such as /0, after its host")
    return dsn


def is_sentinel(dsn: Dsn) -> bool:
    """Whether its hosts are Sentinels, which know where Redis is."""
    return dsn.scheme.endswith("+sentinel")


def is_cluster(dsn: Dsn) -> bool:
    """Whether its hosts are some of a cluster's, which know the others."""
    return dsn.scheme.endswith("+cluster")


def addresses(hosts: str, port: int) -> list[tuple[str, int]]:
    """The hosts of a DSN as pairs. `port` is of those that name none."""
    return [(name, own or port) for name, own in map(_address, hosts.split(","))]


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    return name.strip("[]"), int(port or 0)


def read_mongodb(text: str) -> Dsn:
    """Raises ValueError that says what is wrong."""
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri, split_options

    dsn = _read(text, ("mongodb", "mongodb+srv"), encoded="@:+")  # PyMongo reads a + as a space
    for name, value in dsn.options.items():
        try:
            split_options(f"{name}={quote(value, safe=':,/')}", validate=True, warn=False)
        except (PyMongoError, ValueError, TypeError):
            raise ValueError(f"has {_named(name)} that is unknown, or has a value that it cannot take") from None
    try:
        if dsn.scheme == "mongodb":  # the other form is looked up in DNS
            parse_uri(text, validate=True, warn=False)
    except (PyMongoError, ValueError, TypeError):
        raise ValueError("has options that exclude each other, or a part that is not encoded as %..") from None
    return dsn


def read_smtp(text: str) -> Dsn:
    """Raises ValueError that says what is wrong."""
    dsn = _read(text, ("smtp", "smtps"))
    _require_known(dsn.options, SMTP_OPTIONS if dsn.scheme == "smtp" else {})
    if "," in dsn.hosts or not dsn.hosts or dsn.path:
        raise ValueError("must name one host, perhaps with a port, and nothing after it but options")
    if bool(dsn.user) != bool(dsn.password):
        raise ValueError("has a user without a password, or a password without a user")
    return dsn


def asyncpg_arguments(text: str) -> list[dict[str, Any]]:
    """What `asyncpg.connect` takes for each host of a DSN that `read_postgres` accepts. It reads libpq's URIs itself,
    with some errors that this works around: it splits a password at @, lets parts of the URI win over the options, and
    has one time for all hosts."""
    dsn = read_postgres(text)
    options = dict(dsn.options)
    arguments: dict[str, Any] = {name: int(options.pop(name)) for name in CACHE_SIZES if name in options}
    for name in ("channel_binding", "connect_timeout"):  # it has no such thing; POSTGRES_CONNECT_TIMEOUT counts
        options.pop(name, None)
    if "ssl" in options:
        options.setdefault("sslmode", options.pop("ssl"))
    if options.get("sslrootcert") == "system":
        del options["sslrootcert"]
        arguments["ssl"] = ssl.create_default_context()
    ports = [int(port) for port in options.pop("port", "").split(",") if port]
    hosts = (options.get("host") or dsn.hosts).split(",")
    if len(hosts) > 1:
        options.setdefault("target_session_attrs", "read-write")  # any other server is of no use to us
    return [
        arguments
        | ({"port": ports[number % len(ports)]} if ports else {})
        | {"dsn": _uri(replace(dsn, hosts=host), options | ({"host": host} if "host" in options else {}))}
        for number, host in enumerate(hosts)
    ]


def _uri(dsn: Dsn, options: dict[str, str]) -> str:
    user, password = options.pop("user", dsn.user), options.pop("password", dsn.password)
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    database = options.pop("dbname", dsn.path)
    return "".join(
        (
            "postgresql://",
            f"{credentials}@" if credentials else "",
            "" if "host" in options else dsn.hosts,
            f"/{quote(database, safe='')}" if database else "",
            f"?{urlencode(options, quote_via=quote)}" if options else "",
        )
    )


def _read(text: str, schemes: tuple[str, ...], encoded: str = "") -> Dsn:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("holds a space or a line break: take it out, or write %20 for a space in a password")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"must start with {' or '.join(f'{name}://' for name in schemes)}")
    address, _, query = rest.partition("?")
    authority, _, path = address.partition("/")
    if "#" in rest or "@" in path + query:
        raise ValueError("has a bare / ? # or @, perhaps in its password: write it as %2F, %3F, %23 or %40")
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    if bare := [character for character in encoded if character in user + password]:
        raise ValueError(f"has a bare {bare[0]} in its user or password: write it as {quote(bare[0], safe='')}")
    if not all(_is_host(host) for host in hosts.split(",")) or (",," in f",{hosts}," and hosts):
        raise ValueError("has no host, or host:port, where one belongs (several with commas between)")
    return Dsn(scheme, unquote(user), unquote(password), hosts, unquote(path), _options(query))


def _is_host(host: str) -> bool:
    found = re.fullmatch(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::(\d{1,5}))?", host)
    return found is not None and int(found[1] or 0) < 65_536


def _options(query: str) -> dict[str, str]:
    pairs = [option.partition("=") for option in query.split("&") if option]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("has an option that is not of the form name=value")
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _require_known(options: dict[str, str], known: Mapping[str, str]) -> None:
    for name, value in options.items():
        if name not in known:
            shown = "an option" if "password" in options else _named(name)  # a bare & in a password begins an option
            raise ValueError(f"has {shown} that is unknown. Known are {', '.join(known)}")
        if not re.fullmatch(known[name], value):
            allowed = "a number" if known[name].startswith(NUMBER) else known[name].replace("|", ", ")
            raise ValueError(f"has a value of {name} that it cannot take" + f": it takes {allowed}" * bool(value))


def _named(option: str) -> str:
    return f"an option {option}" if option.isidentifier() else "an option"


def _require_tls_files(options: dict[str, str]) -> None:
    """Else each connection would fail, and look like a server that is down."""
    mode = options.get("sslmode", options.get("ssl", ""))
    root = options.get("sslrootcert")
    if root == "system" and mode != "verify-full":
        raise ValueError("has sslrootcert=system, which needs sslmode=verify-full")
    default = Path(os.environ.get("PGSSLROOTCERT") or Path.home() / ".postgresql" / "root.crt")
    if mode.startswith("verify") and not root and not default.exists():
        raise ValueError(f"has sslmode={mode} without sslrootcert: the path of a file, or system")
    _require_readable(options, "" if root == "system" else "sslrootcert", "sslcert", "sslkey")


def _require_files_of_redis(options: dict[str, str]) -> None:
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("has ssl_keyfile without ssl_certfile")
    if "ssl_ca_path" in options and not Path(options["ssl_ca_path"]).is_dir():
        raise ValueError("names something in ssl_ca_path that is no folder")
    _require_readable(options, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", options.get("ssl_password", ""))


def _require_readable(options: dict[str, str], root: str, certificate: str, key: str, password: str = "") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if root in options:
            context.load_verify_locations(options[root])
        if certificate in options:  # without a password it would ask for one
            context.load_cert_chain(options[certificate], options.get(key), password=password)
    except OSError:
        names = f"{', '.join(filter(None, (root, certificate)))} or {key}"
        raise ValueError(f"names a file in {names} that cannot be read, or holds none") from None
