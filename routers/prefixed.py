"""How requests find their router."""

from fastapi import APIRouter
from starlette.routing import Match
from starlette.types import Scope


class PrefixedRouter(APIRouter):
    """FastAPI asks each included router in turn, and a router each of its routes. Here a router whose prefix is not in
    the path says no at once (docs/performance.md)."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and self.prefix not in scope["path"]:
            return Match.NONE, {}
        return super().matches(scope)
