"""The guide's Python client for live messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from docs.clients.follow import follow
from tests.product.live_cuts import (
    STREAM,
    follow_through_cuts,
    go_on_from_the_first_frame,
    heed_what_the_server_says,
    playing,
)
from tristore.testing.lab import NO_TLS
from tristore.testing.stores import Servers


async def follow_in_python(
    base: str, id_: str, token: str, after: int | None, on: Callable[[str, int], None], idle: float = 30
) -> int:
    async def on_message(message: Any) -> None:
        on("message", message["seq"])

    async def on_reset(reset: Any) -> None:
        on("reset", reset["last_seq"])

    async with httpx.AsyncClient(base_url=base, verify=NO_TLS, headers={"Authorization": f"Bearer {token}"}) as client:
        return await follow(client, id_, on_message, on_reset, after, idle)


@pytest.mark.timeout(1200)  # with CUTS=10000
async def test_each_message_comes_once_and_in_order_however_often_the_stream_is_cut(
    servers: Servers, tmp_path: Path
) -> None:
    await follow_through_cuts(servers, tmp_path, follow_in_python)


async def test_it_heeds_what_the_server_says() -> None:
    await heed_what_the_server_says(follow_in_python)


async def test_it_goes_on_from_the_first_frame() -> None:
    await go_on_from_the_first_frame(follow_in_python)


async def test_what_a_handler_raises_is_raised() -> None:
    def refuse(kind: str, number: int) -> None:
        raise LookupError(kind)

    async with playing(STREAM + b'id: 5\nretry: 1\n\nevent: message\ndata: {"seq":6}\nid: 6\n\n') as played:
        with pytest.raises(LookupError):
            await follow_in_python(f"http://127.0.0.1:{played.port}", "x", "t", None, refuse)
