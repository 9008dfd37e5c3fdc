"""The three stores of the service, opened together and closed in reverse."""

from tristore.stores.stores import Stores, open_stores

__all__ = ["Stores", "open_stores"]
