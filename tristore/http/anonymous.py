"""Requests of nobody that we know are counted by their address, before anything else of them is read."""

from fastapi import Depends, Request

from tristore.bounds.limits import Limits
from tristore.http.requests import address_of

COUNTED = "counted"


class CountedByAddress:
    """A dependency, and a guard, of routes that need no token. It asks `app.state.limits`. Raises TooManyRequests."""

    async def admit(self, request: Request) -> None:
        """Count the request, once."""
        if COUNTED not in request.scope:
            request.scope[COUNTED] = True
            await self.count(request, address_of(request))

    async def __call__(self, request: Request) -> None:
        await self.admit(request)

    async def count(self, request: Request, address: str) -> None:
        limits: Limits = request.app.state.limits
        limits.anonymous(address)


BY_ADDRESS = Depends(CountedByAddress())
"""One of `dependencies` of a router or a route."""
