"""How often somebody may ask. Each limit is a setting such as `10/minute`, and empty turns it off."""

import hashlib
import uuid
from collections import Counter
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from limits import RateLimitItem

from tristore.bounds.rate_counters import RateCounters
from tristore.errors import TooManyRequests


class RateLimitService:
    """Every method counts one request, and raises TooManyRequests above the limit."""

    def __init__(
        self,
        *,
        counters: RateCounters,
        sign_in_address: tuple[RateLimitItem, ...],
        sign_in_account: tuple[RateLimitItem, ...],
        registration: tuple[RateLimitItem, ...],
        requests: tuple[RateLimitItem, ...],
    ) -> None:
        self._counters = counters
        self._sign_in_address = sign_in_address
        self._sign_in_account = sign_in_account
        self._registration = registration
        self._requests = requests
        self.counts: Counter[str] = Counter()
        """How often each limit refused."""

    async def sign_in(self, address: str, account: str) -> None:
        """By address, and more strictly by account from that address. Never by account alone, or anybody could lock the
        owner out by guessing."""
        await self._count("sign_in_address", self._sign_in_address, network(address))
        # Hashed: a name or an email in a key would outlive its user's erasure.
        name = hashlib.sha256(account.lower().encode()).hexdigest()
        await self._count("sign_in_account", self._sign_in_account, network(address), name)

    async def registration(self, address: str) -> None:
        await self._count("registration", self._registration, network(address))

    def request(self, user_id: uuid.UUID) -> None:
        """In this process alone: a round trip to Redis for each request would halve the speed of a cached read."""
        for limit in self._requests:
            self._refuse("requests", self._counters.count_here(limit, "requests", str(user_id)))

    async def _count(self, name: str, limits: tuple[RateLimitItem, ...], *who: str) -> None:
        for limit in limits:
            self._refuse(name, await self._counters.count(limit, name, *who))

    def _refuse(self, name: str, seconds: float | None) -> None:
        if seconds is not None:
            self.counts[name] += 1
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
