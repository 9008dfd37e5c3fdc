"""Redis: speed. What opens it, asks whether it serves, and turns its errors into StoreUnavailable."""

from tristore.stores.redis import RedisStore, open_redis, ping, translate_errors

__all__ = ["RedisStore", "open_redis", "ping", "translate_errors"]
