"""The guide's JavaScript client for live messages, in Node."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.product.live_cuts import (
    follow_through_cuts,
    go_on_from_the_first_frame,
    heed_what_the_server_says,
)
from tristore.testing.lab import PROJECT
from tristore.testing.stores import Servers

DRIVER = """
import { follow } from "%s";
const tell = (kind, number) => process.stdout.write(JSON.stringify([kind, number]) + "\\n");
const onMessage = (message) => tell("message", message.seq);
const onReset = (reset) => tell("reset", reset.last_seq);
const status = await follow({ ...JSON.parse(process.argv[1]), onMessage, onReset });
tell("over", status);
process.exit();
"""


async def follow_in_javascript(
    base: str, id_: str, token: str, after: int | None, on: Callable[[str, int], None], idle: float = 30
) -> int:
    options = {"api": base, "conversationId": id_, "token": token, "after": after, "idleMs": idle * 1000}
    client: Path = PROJECT / "docs/clients/follow.mjs"
    arguments = ("--input-type=module", "-e", DRIVER % client.as_uri(), json.dumps(options))
    node = await asyncio.create_subprocess_exec("node", *arguments, stdout=asyncio.subprocess.PIPE)
    assert node.stdout
    try:
        while line := await node.stdout.readline():
            kind, number = json.loads(line)
            if kind == "over":
                return int(number)
            on(kind, number)
        raise AssertionError("The client has ended without a status.")
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()


@pytest.mark.timeout(1200)  # with CUTS=10000
async def test_each_message_comes_once_and_in_order_however_often_the_stream_is_cut(
    servers: Servers, tmp_path: Path
) -> None:
    await follow_through_cuts(servers, tmp_path, follow_in_javascript)


async def test_it_heeds_what_the_server_says() -> None:
    await heed_what_the_server_says(follow_in_javascript)


async def test_it_goes_on_from_the_first_frame() -> None:
    await go_on_from_the_first_frame(follow_in_javascript)
