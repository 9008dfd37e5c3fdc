"""PostgreSQL: the truth. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from tristore.stores.postgres import (
    HotQuery,
    Postgres,
    connect,
    open_postgres,
    ping,
    read_anywhere,
    start_budget,
    translate_errors,
)

__all__ = [
    "HotQuery",
    "Postgres",
    "connect",
    "open_postgres",
    "ping",
    "read_anywhere",
    "start_budget",
    "translate_errors",
]
