"""PostgreSQL: the truth. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from tristore.stores.postgres import Postgres, open_postgres, ping, translate_errors

__all__ = ["Postgres", "open_postgres", "ping", "translate_errors"]
