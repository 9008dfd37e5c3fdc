"""How requests find their router."""

from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from re import Pattern

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from tristore.http.strict import bounded_route


class PrefixedRouter(APIRouter):
    """FastAPI asks each included router in turn, and a router each of its routes, twice. This one says no at once when
    its prefix, or what is `within` all its paths, is not in the path, and yes when a path of its own fits. Without it
    a cached read takes a quarter longer (docs/performance.md)."""

    def __init__(
        self,
        *,
        prefix: str = "",
        within: str = "",
        tags: list[str | Enum],
        about: str | None = None,
        route_class: type[APIRoute] | None = None,
        max_body_bytes: int = 16_384,
    ) -> None:
        """`about`: what the API's document says of the tags. `max_body_bytes`: of each route, unless it has a class of
        its own; MAX_BODY_BYTES holds for all."""
        super().__init__(prefix=prefix, tags=tags, route_class=route_class or bounded_route(max_body_bytes))
        self._within = within or prefix
        self.about = about

    @cached_property
    def _fixed(self) -> set[tuple[str, str]]:
        """Methods and paths of the routes without parameters."""
        return {(method, route.path) for method, route in self._served if not route.param_convertors}

    @cached_property
    def _patterns(self) -> list[tuple[str, Pattern[str]]]:
        """Methods and paths of the others."""
        return [(method, route.path_regex) for method, route in self._served if route.param_convertors]

    @property
    def _served(self) -> Iterator[tuple[str, APIRoute]]:
        for route in self.routes:
            if isinstance(route, APIRoute):
                yield from ((method, route) for method in route.methods or ())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            if (method, path) in self._fixed:
                return Match.FULL, {}
            if self._within not in path:
                return Match.NONE, {}
            if any(method == served and pattern.match(path) for served, pattern in self._patterns):
                return Match.FULL, {}  # which route it is, FastAPI finds out anyway
        return super().matches(scope)
