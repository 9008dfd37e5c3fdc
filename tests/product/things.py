"""What a user or an admin makes through the API, and what the tables hold of it."""

from typing import Any

import httpx
from sqlalchemy import text

from models.course import EXAMPLE
from tristore.stores.stores import Stores


async def count(stores: Stores, sql: str, **parameters: Any) -> int:
    async with stores.postgres.engine.connect() as connection:
        return int(await connection.scalar(text(sql), parameters) or 0)


async def new_course(client: httpx.AsyncClient, admin: dict[str, str], **changes: Any) -> dict[str, Any]:
    answer = await client.post("/courses", headers=admin, json=EXAMPLE | changes)
    assert answer.status_code == 201, answer.text
    course: dict[str, Any] = answer.json()
    return course


async def start_conversation(client: httpx.AsyncClient, headers: dict[str, str]) -> str:
    answer = await client.post("/conversations", headers=headers, json={"title": "t"})
    assert answer.status_code == 201, answer.text
    return f"/conversations/{answer.json()['id']}"


async def post(client: httpx.AsyncClient, conversation: str, headers: dict[str, str], *contents: str) -> None:
    for content in contents:
        answer = await client.post(f"{conversation}/messages", headers=headers, json={"content": content})
        assert answer.status_code == 201, answer.text
