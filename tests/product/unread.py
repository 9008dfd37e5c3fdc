"""Large answers that nobody reads."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import httpx

from tristore.models import now
from tristore.stores.stores import Stores

MESSAGES, CONTENT = 80, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 20_000
"""More than the kernel buffers for a connection, in the largest messages that there are: 60 KB each."""


async def fill(stores: Stores, conversation: str) -> None:
    """Put many large messages into a new conversation, given as its path."""
    id_ = conversation.rpartition("/")[2]
    message = {"conversation_id": id_, "role": "user", "metadata": {}, "timestamp": now(), "content": CONTENT}
    numbered: list[dict[str, Any]] = [
        message | {"_id": f"{id_}/{i}", "id": str(i), "seq": i} for i in range(1, MESSAGES + 1)
    ]
    await stores.mongodb.database.messages.insert_many(numbered)


async def ask(
    exits: ExitStack, base: httpx.URL, headers: dict[str, str], path: str = "/users/me/export"
) -> socket.socket:
    """Ask for it and read nothing."""
    reader = exits.enter_context(socket.socket())
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, (base.host, base.port))
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: test",
        "Connection: close",
        f"Authorization: {headers['Authorization']}",
        "",
        "",
    ]
    await loop.sock_sendall(reader, "\r\n".join(lines).encode())
    return reader
