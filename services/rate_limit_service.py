"""How often somebody may ask. Each limit is a setting such as `10/minute`, and empty turns it off."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import Literal, get_args

from limits import RateLimitItem

from tristore.bounds.rate_counters import RateCounters
from tristore.errors import TooManyRequests

Kind = Literal["sign_in_address", "sign_in_account", "registration", "requests"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RateLimitService:
    """Every method counts one request, and raises TooManyRequests above the limit."""

    def __init__(
        self,
        *,
        counters: RateCounters,
        limits_of: Callable[[Kind], tuple[RateLimitItem, ...]],
    ) -> None:
        self._counters = counters
        self._limits = {kind: limits_of(kind) for kind in KINDS}
        self._requests = self._limits["requests"]
        self.counts: Counter[str] = Counter()
        """How often each limit refused."""

    async def sign_in(self, address: str, account: str) -> None:
        """By address, and more strictly by account from that address. Never by account alone, or anybody could lock the
        owner out by guessing."""
        await self._count("sign_in_address", network(address))
        # Hashed: a name or an email in a key would outlive its user's erasure.
        name = hashlib.sha256(account.encode()).hexdigest()
        await self._count("sign_in_account", network(address), name)

    async def registration(self, address: str) -> None:
        await self._count("registration", network(address))

    def request(self, user_id: uuid.UUID) -> None:
        """In this process alone: a round trip to Redis for each request would halve the speed of a cached read."""
        for limit in self._requests:
            self._refuse("requests", self._counters.count_here(limit, "requests", str(user_id)))

    async def _count(self, kind: Kind, *who: str) -> None:
        for limit in self._limits[kind]:
            self._refuse(kind, await self._counters.count(limit, kind, *who))

    def _refuse(self, kind: Kind, seconds: float | None) -> None:
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
