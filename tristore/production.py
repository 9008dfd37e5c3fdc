"""What production refuses of the settings. Messages name the setting, never its value."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from urllib.parse import unquote

from tristore.stores.dsn import Dsn

MIN_PASSWORD, MIN_SCORE, MOST_ESTIMATED = 12, 3, 32
"""Of a store's password: characters, and zxcvbn's estimate of the first ones. 3 stands for more than 10^8 guesses."""
DEVELOPMENT_PASSWORDS = {"postgres", "redis", "mongo", "mongodb", "root", "password", "secret", "changeme"}
LARGEST_V4, LARGEST_V6 = 8, 16
"""Bits that a network of the Internet has in common at least. Nobody's proxies have a larger one."""
MAPPED = IPv6Network("::ffff:0:0/96")
"""How a socket that takes both tells the addresses of IPv4."""


def dsn_problems(dsn: Dsn, known_passwords: Iterable[str], *, trusted: bool) -> Iterator[str]:
    """`trusted`: the way to the store is safe by other means. Then TLS and a good password are not asked for. A
    password that everybody knows is refused all the same."""
    # Where a DSN has two of the same, drivers differ in which they take.
    own = [*filter(None, (dsn.password, dsn.options.get("password")))]
    passwords = [*own, *filter(None, [dsn.options.get("sentinel_password")])]
    if is_well_known(passwords, known_passwords):
        yield "has a well-known password"
    elif not trusted and not own and "sslcert" not in dsn.options:
        yield "has no password"
    elif not trusted and any(len(password) < MIN_PASSWORD for password in passwords):
        yield f"has a password of fewer than {MIN_PASSWORD} characters, which can be guessed"
    elif not trusted and any(is_guessed_soon(password, dsn.user) for password in passwords):
        yield "has a password that few guesses would find: take a random one"
    if not trusted and not _has_tls(dsn) and not _stays_here(dsn):
        yield "has no TLS, and may lead to another machine: whoever is between reads all data"


def is_well_known(passwords: Iterable[str], known: Iterable[str]) -> bool:
    """Also with other signs between its letters, as in `change-me`."""
    written = {form for text in passwords for form in (text.lower(), "".join(filter(str.isalnum, text)).lower())}
    return bool(written & (DEVELOPMENT_PASSWORDS | set(known)))


def is_in_the_clear(mail: Dsn) -> bool:
    """Whether mail, and the password of its server, goes to another machine without TLS."""
    return mail.options.get("starttls") == "never" and not all(map(_is_local, _hosts(mail)))


def trusts_everybody(proxies: Iterable[str]) -> bool:
    """Whether networks hold every address of IPv4 or of IPv6, or a great part of them, in one piece or in several."""
    networks = [_unmapped(ip_network(proxy)) for proxy in proxies]
    v4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    v6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    large = [network for network in v4 if network.prefixlen < LARGEST_V4]
    return bool(large) or any(network.prefixlen < LARGEST_V6 and not network.is_private for network in v6)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Of IPv4 where it holds addresses of IPv4."""
    if not isinstance(network, IPv6Network) or not network.overlaps(MAPPED):
        return network
    bits = max(network.prefixlen - MAPPED.prefixlen, 0)
    return IPv4Network((int(network.network_address) % 2**32, bits))


def _has_tls(dsn: Dsn) -> bool:
    options = {name.lower(): value.lower() for name, value in dsn.options.items()}
    if dsn.scheme.startswith("postgres"):  # the other modes go on in the clear when the server has no TLS
        return options.get("sslmode", options.get("ssl")) in {"require", "verify-ca", "verify-full"}
    asked = options.get("tls", options.get("ssl", "true" if dsn.scheme == "mongodb+srv" else "false"))
    return dsn.scheme.startswith("rediss") or (dsn.scheme.startswith("mongodb") and asked == "true")


def is_guessed_soon(password: str, user: str = "") -> bool:
    """Whether 10^8 guesses would find it, by whoever knows the name that it belongs to."""
    from zxcvbn_rs_py import zxcvbn  # it reads its lists for 30 ms, and only production needs them

    return int(zxcvbn(password[:MOST_ESTIMATED], [user.lower()]).score) < MIN_SCORE


def _stays_here(dsn: Dsn) -> bool:
    """Whoever is asked for the others, as Sentinels and members of sets are, may be of this machine, and the others
    need not be."""
    of_others = dsn.scheme.endswith(("+sentinel", "+cluster"))
    if dsn.scheme.startswith("mongodb"):
        direct = {name.lower(): value.lower() for name, value in dsn.options.items()}.get("directconnection")
        of_others = direct != "true"
    return not of_others and all(map(_is_local, _hosts(dsn)))


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
