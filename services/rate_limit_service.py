"""How often somebody may ask. Each limit is a setting such as `10/minute`, and empty turns it off."""

import hashlib
import uuid
from typing import Literal, get_args

from tristore.bounds.limits import Limits, network

Kind = Literal["sign_in_address", "sign_in_account", "registration", "requests"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RateLimitService(Limits):
    """Every method counts one request, and raises TooManyRequests above the limit."""

    async def sign_in(self, address: str, account: str) -> None:
        """By address, and more strictly by account from that address. Never by account alone, or anybody could lock the
        owner out by guessing."""
        await self.count("sign_in_address", network(address))
        # Hashed: a name or an email in a key would outlive its user's erasure.
        name = hashlib.sha256(account.encode()).hexdigest()
        await self.count("sign_in_account", network(address), name)

    async def registration(self, address: str) -> None:
        await self.count("registration", network(address))

    def request(self, user_id: uuid.UUID) -> None:
        """In this process alone: a round trip to Redis for each request would halve the speed of a cached read."""
        self.count_here("requests", str(user_id))
