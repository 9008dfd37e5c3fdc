"""How often somebody may ask. Each limit is a setting such as `10/minute`, and empty turns it off."""

import uuid

from tristore.bounds.limits import Limits, hashed, network

Turn = tuple[str, bool]
"""Whose turn a guess takes, and whether the account knows the address: `Turnstile.turn(*turn)`."""
NOBODYS: Turn = ("", False)
KNOWN_SECONDS = 30 * 86_400
"""For so long after a sign-in its address is known to the account."""


class RateLimitService(Limits):
    """Every method that counts raises TooManyRequests above the limit."""

    async def sign_in(self, address: str) -> None:
        """Whatever was sent, and before it is read."""
        await self.count_address("sign_in_address", address)

    async def guess(self, address: str, account: str) -> Turn:
        """A password of an account, from an address. Never by account alone, or anybody could
        lock the owner out by guessing: an address that has signed in to it goes on, and waits in no stranger's line."""
        whose = network(address)
        pair = hashed(account, whose)
        await self.count("sign_in_account", pair)
        is_known = await self._counters.is_noted(pair)
        if is_known is False:  # without Redis nobody is known, and nobody a stranger
            await self.count("sign_in_strangers", hashed(account))
        return (pair, True) if is_known else (whose, False)

    async def remember(self, address: str, account: str) -> None:
        """That somebody has signed in from there."""
        await self._counters.note(KNOWN_SECONDS, hashed(account, network(address)))

    async def registration(self, address: str) -> None:
        """Also of a change that would tell whether a name or an e-mail address is taken."""
        await self.count_address("registration", address)

    def request(self, user_id: uuid.UUID) -> None:
        """In this process alone: a round trip to Redis for each request would halve the speed of a cached read."""
        self.count_here("requests", str(user_id))
