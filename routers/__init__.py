"""HTTP and nothing else. Every file here is a router of the application: adding one needs no other change."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter


def all_routers() -> Iterator[APIRouter]:
    """The `router` of each module in this folder, by name."""
    for module in iter_modules(__path__):
        router: APIRouter = import_module(f"{__name__}.{module.name}").router
        yield router
