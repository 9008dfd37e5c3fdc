"""Limits on how often somebody may ask."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil

from limits import RateLimitItem

from tristore.bounds.rate_counters import RateCounters
from tristore.errors import TooManyRequests

TIERS = {64: 1, 56: 4, 48: 16}
"""Of IPv6: how many times the limit all addresses with so many first bits in common have. A subscriber gets a /64, or a
/56, or even a /48 (RFC 6177): whoever has the larger network has not as many limits as there are smaller ones in it."""


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

    async def count_address(self, kind: str, address: str) -> None:
        """Count it for all processes together, and the networks that it is in."""
        for limit, who in self._of_address(kind, address):
            self._refuse(kind, await self._counters.count(limit, kind, who))

    async def mail(self, *to: str) -> None:
        """One that somebody asks for, by the address that it goes to, or by what else the most is of."""
        await self.count("mail", hashed(*to))

    async def may_mail(self, *to: str) -> bool:
        """The same, for an answer that must not tell that others have asked."""
        try:
            await self.mail(*to)
        except TooManyRequests:
            return False
        return True

    def anonymous(self, address: str) -> None:
        """Count a request of nobody that we know, in this process alone."""
        for limit, who in self._of_address("anonymous", address):
            self._refuse("anonymous", self._counters.count_here(limit, "anonymous", who))

    def _of_address(self, kind: str, address: str) -> Iterator[tuple[RateLimitItem, str]]:
        for limit in self._limits[kind]:
            for who, times in networks(address):
                yield _times(limit, times), who

    def _refuse(self, kind: str, seconds: float | None) -> None:
        if seconds is not None:
            self.counts[kind] += 1
            raise TooManyRequests(ceil(seconds))


def hashed(*parts: str) -> str:
    """For a key that names somebody: what is in a key would outlive an erasure."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@lru_cache(4096)
def networks(address: str) -> tuple[tuple[str, int], ...]:
    """Who an address may stand for, and how many times the limit each has. The smallest first: what is refused to it is
    not counted for the others in the larger ones."""
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket, or what a proxy made up
        return ((address[:64], 1),)
    if not isinstance(ip, IPv6Address):
        return ((str(ip), 1),)
    if ip.ipv4_mapped:
        return ((str(ip.ipv4_mapped), 1),)
    return tuple((str(IPv6Network((int(ip), bits), strict=False)), times) for bits, times in TIERS.items())


def network(address: str) -> str:
    """Who an address stands for at least: itself, or its /64."""
    return networks(address)[0][0]


@lru_cache(256)
def _times(limit: RateLimitItem, times: int) -> RateLimitItem:
    return type(limit)(limit.amount * times, limit.multiples)
