"""Looks for what a user has left in the three stores."""

import json
from typing import Any

from sqlalchemy import text

from tristore.stores.stores import Stores


async def traces(stores: Stores, *texts: str) -> list[str]:
    """Every table, collection and key that holds one of the texts, wherever and in whatever case."""
    wanted = [item.lower() for item in texts]
    found: list[str] = []

    def look(where: str, content: object) -> None:
        if any(item in str(content).lower() for item in wanted):
            found.append(where)

    async with stores.postgres.engine.connect() as connection:
        tables = await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        for table in tables.all():
            for (row,) in await connection.execute(text(f'SELECT CAST(t AS text) FROM "{table}" t')):
                look(f"postgresql {table}", row)
    for collection in await stores.mongodb.database.list_collection_names():
        for document in await stores.mongodb.database[collection].find({}).to_list(100_000):
            look(f"mongodb {collection}", json.dumps(document, default=str, ensure_ascii=False))
    redis: Any = stores.redis.client
    async for key in redis.scan_iter(count=1000):
        value = await redis.get(key) if await redis.type(key) == b"string" else b""
        look(f"redis {key.decode()}", (key + b" " + (value or b"")).decode(errors="replace"))
    return found
