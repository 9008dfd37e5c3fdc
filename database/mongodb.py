"""MongoDB: documents. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from contextlib import AbstractAsyncContextManager

from config import Settings
from migrations import SCRIPTS
from tristore.stores import mongodb
from tristore.stores.mongodb import Document, MongoStore, ping, translate_errors

__all__ = ["Document", "MongoStore", "open_mongodb", "ping", "translate_errors"]


def open_mongodb(settings: Settings, **options: object) -> AbstractAsyncContextManager[MongoStore]:
    """Open a client that serves once MongoDB is migrated. `options` are the driver's. It connects on first use."""
    return mongodb.open_mongodb(settings, SCRIPTS.newest(), **options)
