"""Whose process it is that asks, on a machine that others use too."""

import os
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from starlette.requests import Request

from tristore.http.middleware import FORWARDED

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
LOCAL, REMOTE, USER = 1, 2, 7
"""Columns."""


def is_of_our_user(request: Request) -> bool:
    """Whether a process of the user who runs this one, or of root, asks from this machine, by an address or as
    localhost. A page of another site may have its name lead here. Where the system has no table of connections, as on
    macOS, any user of the machine may ask."""
    client, server = request.scope["client"], request.scope["server"]
    if not client or not server or any(name in FORWARDED for name, _ in request.scope["headers"]):
        return False
    if not _is_address(request.url.hostname or "") or not ip_address(_plain(client[0])).is_loopback:
        return False
    tables = [Path(table) for table in TABLES if Path(table).exists()]
    row = _written(*client), _written(*server)
    users = [
        int(columns[USER])
        for table in tables
        for columns in map(str.split, table.read_text().splitlines())
        if (columns[LOCAL], columns[REMOTE]) == row
    ]
    return not tables or any(user in {0, os.getuid()} for user in users)


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return host == "localhost"


def _plain(address: str) -> str:
    """Of IPv4, where a socket for both tells it as one of IPv6."""
    ip = ip_address(address)
    return str(ip.ipv4_mapped) if isinstance(ip, IPv6Address) and ip.ipv4_mapped else address


def _written(address: str, port: int) -> str:
    """As the tables do: four bytes at a time, the last one first."""
    plain = _plain(address)
    packed = socket.inet_pton(socket.AF_INET6 if ":" in plain else socket.AF_INET, plain)
    words = (packed[start : start + 4][::-1].hex().upper() for start in range(0, len(packed), 4))
    return f"{''.join(words)}:{port:04X}"
