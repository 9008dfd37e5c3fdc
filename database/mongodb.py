"""MongoDB: documents. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from tristore.stores.mongodb import MongoStore, open_mongodb, ping, translate_errors

__all__ = ["MongoStore", "open_mongodb", "ping", "translate_errors"]
