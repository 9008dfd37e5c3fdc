"""The three stores of the service, opened together and closed in reverse."""

from contextlib import AbstractAsyncContextManager

from config import Settings
from migrations import SCRIPTS
from tristore.stores import stores
from tristore.stores.stores import Stores

__all__ = ["Stores", "open_stores"]


def open_stores(settings: Settings) -> AbstractAsyncContextManager[Stores]:
    """Open all three without connecting: the service starts while stores are down. Raises MissingDSN."""
    return stores.open_stores(settings, SCRIPTS.newest())
