"""MongoDB: documents. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from tristore.stores.mongodb import Document, MongoStore, open_mongodb, ping, translate_errors
from tristore.stores.mongodb_errors import refusal_in

__all__ = ["Document", "MongoStore", "open_mongodb", "ping", "refusal_in", "translate_errors"]
