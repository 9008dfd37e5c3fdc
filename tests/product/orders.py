"""Orders that tests place, and the seats that they take."""

from typing import Any

import httpx

from tristore.stores.stores import Stores


async def order(
    client: httpx.AsyncClient, headers: dict[str, str], course: dict[str, Any], **more: Any
) -> httpx.Response:
    key = {"Idempotency-Key": more.pop("key")} if "key" in more else {}
    return await client.post("/orders", headers=headers | key, json={"course_id": course["id"], **more})


async def seats(stores: Stores, course: dict[str, Any]) -> dict[str, Any]:
    document: Any = await stores.mongodb.database.seats.find_one({"_id": course["id"]})
    return dict(document)
