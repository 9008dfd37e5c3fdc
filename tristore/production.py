"""What production refuses of the settings. Messages name the setting, never its value."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from urllib.parse import unquote

from tristore.stores.dsn import Dsn

MIN_PASSWORD = 12
DEVELOPMENT_PASSWORDS = {"postgres", "redis", "mongo", "mongodb", "root", "password", "secret", "changeme"}


def dsn_problems(dsn: Dsn, known_passwords: Iterable[str], *, trusted: bool) -> Iterator[str]:
    """`trusted`: the way to the store is safe by other means. Then TLS and the password's length are not asked for. A
    password that everybody knows is refused all the same."""
    password = dsn.options.get("password", dsn.password)
    of_sentinels = dsn.options.get("sentinel_password", "")
    if {password.lower(), of_sentinels.lower()} & (DEVELOPMENT_PASSWORDS | set(known_passwords)):
        yield "has a well-known password"
    elif not trusted and not password and "sslcert" not in dsn.options:
        yield "has no password"
    elif not trusted and password and len(password) < MIN_PASSWORD:
        yield f"has a password of fewer than {MIN_PASSWORD} characters, which can be guessed"
    # Whoever is asked for the others may be of this machine, and the others need not be.
    stays = not dsn.scheme.endswith(("+sentinel", "+cluster")) and all(map(_is_local, _hosts(dsn)))
    if not trusted and not _has_tls(dsn) and not stays:
        yield "has no TLS, and may lead to another machine: whoever is between reads all data"


def is_in_the_clear(mail: Dsn) -> bool:
    """Whether mail, and the password of its server, goes to another machine without TLS."""
    return mail.options.get("starttls") == "never" and not all(map(_is_local, _hosts(mail)))


def trusts_everybody(proxies: Iterable[str]) -> bool:
    """Whether networks hold every address of IPv4 or of IPv6, in one piece or in several."""
    networks = [ip_network(proxy) for proxy in proxies]
    v4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    v6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return any(network.prefixlen == 0 for network in v4) or any(network.prefixlen == 0 for network in v6)


def _has_tls(dsn: Dsn) -> bool:
    options = {name.lower(): value.lower() for name, value in dsn.options.items()}
    if dsn.scheme.startswith("postgres"):  # the other modes go on in the clear when the server has no TLS
        return options.get("sslmode", options.get("ssl")) in {"require", "verify-ca", "verify-full"}
    asked = options.get("tls", options.get("ssl", "true" if dsn.scheme == "mongodb+srv" else "false"))
    return dsn.scheme.startswith("rediss") or (dsn.scheme.startswith("mongodb") and asked == "true")


def _hosts(dsn: Dsn) -> list[str]:
    if dsn.scheme == "unix":
        return []
    return (dsn.options.get("host") or dsn.hosts).split(",")


def _is_local(host: str) -> bool:
    """A socket's folder, or this machine. A DSN without a host leads to this machine."""
    name = unquote(host)
    if name.startswith("/"):
        return True
    name = name.partition("]")[0].removeprefix("[") if name.startswith("[") else name.partition(":")[0]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() in {"", "localhost"}
