"""Limits on how often somebody may ask."""

from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from limits import RateLimitItem

from tristore.bounds.rate_counters import RateCounters
from tristore.errors import TooManyRequests


class Limits:
    """Every method counts one request of `who`, and raises TooManyRequests above a limit of that kind."""

    def __init__(self, counters: RateCounters, limits: Mapping[str, Sequence[RateLimitItem]]) -> None:
        """`limits`: of each kind. One that has none is turned off."""
        self._counters = counters
        self._limits = limits
        self.counts: Counter[str] = Counter()
        """How often each kind refused."""

    async def count(self, kind: str, *who: str) -> None:
        """For all processes together."""
        for limit in self._limits[kind]:
            self._refuse(kind, await self._counters.count(limit, kind, *who))

    def count_here(self, kind: str, *who: str) -> None:
        """In this process alone, without a round trip to Redis."""
        for limit in self._limits[kind]:
            self._refuse(kind, self._counters.count_here(limit, kind, *who))

    def _refuse(self, kind: str, seconds: float | None) -> None:
        if seconds is not None:
            self.counts[kind] += 1
            raise TooManyRequests(ceil(seconds))


def network(address: str) -> str:
    """Who an address stands for: itself, or its /64, which is what one subscriber gets of IPv6 (RFC 6177)."""
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket, or what a proxy made up
        return address[:64]
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
    return str(ip)
