"""A Redis user with the rights that docs/troubleshooting.md names is enough, and none of them is too much."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from redis.asyncio import Redis

from tests.product.people import attempt, register
from tests.product.things import post, start_conversation
from tests.under_test import Lab
from tristore.testing.cluster import RedisCluster
from tristore.testing.lab import PROJECT, until

RULE = re.search(r"ACL SETUSER app on >\S+ ([^`]+)`", (PROJECT / "docs/troubleshooting.md").read_text())
assert RULE
RIGHTS = RULE[1].split()
IN_CLUSTER = re.search(r"In a cluster also `([^`]+)`", (PROJECT / "docs/troubleshooting.md").read_text())
assert IN_CLUSTER
COMMANDS = {right[1:] for right in RIGHTS if right.startswith("+")}
UNNAMED = {"auth", "hello"}
"""What everybody may."""
SELDOM = {"ping", "select", "unsubscribe"}
"""At a new history, for another database than 0, at the end."""


@asynccontextmanager
async def user_with(admin: Redis, *rights: str) -> AsyncIterator[str]:
    """The password of the user `narrow`."""
    password = secrets.token_hex(16)
    await admin.execute_command("ACL", "SETUSER", "narrow", "reset", "on", f">{password}", *rights)
    try:
        yield password
    finally:
        await admin.execute_command("ACL", "DELUSER", "narrow")


async def use(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    await attempt(client, "nobody")
    for _ in range(2):
        assert (await client.get("/users/me", headers=headers)).status_code == 200
    assert (await client.patch("/users/me", headers=headers, json={"bio": "new"})).status_code == 200
    await post(client, await start_conversation(client, headers), headers, "a message")
    assert (await client.post("/auth/logout", headers=headers)).status_code == 204


async def test_the_documented_rights_are_enough_and_none_is_too_much(lab: Lab) -> None:
    server = lab.servers["redis"]
    async with Redis.from_url(server.dsn) as admin, user_with(admin, *RIGHTS) as password:
        await admin.execute_command("ACL", "LOG", "RESET")
        await admin.config_resetstat()
        dsn = f"redis://narrow:{password}@127.0.0.1:{server.port}{urlsplit(server.dsn).path}"
        limits = {"RATE_LIMIT_SIGN_IN_ACCOUNT": "100/minute", "RATE_LIMIT_REGISTRATION": "100/minute"}
        async with lab.app(REDIS_DSN=dsn, **limits) as app:

            async def is_connected() -> bool:
                return bool((await app.client.get("/health")).json()["databases"]["redis"] == "connected")

            await until(is_connected, 10)
            await use(app.client)
        refused: Any = await admin.execute_command("ACL", "LOG")
        assert [entry for entry in refused if entry[b"username"] == b"narrow"] == []
        told: Any = await admin.info("commandstats")
    used = {name.removeprefix("cmdstat_") for name in told}
    assert used - UNNAMED - COMMANDS <= ADMINISTRATORS
    assert used >= COMMANDS - SELDOM


async def test_in_a_cluster_the_rights_that_are_added_are_enough_and_needed(lab: Lab, cluster: RedisCluster) -> None:
    assert IN_CLUSTER
    more = IN_CLUSTER[1].split()
    async with AsyncExitStack() as stack:
        admins = [await stack.enter_async_context(node.client()) for node in cluster.nodes]
        password = secrets.token_hex(16)
        for admin in admins:
            rights = ("reset", "on", f">{password}", *RIGHTS, *more)
            await admin.execute_command("ACL", "SETUSER", "narrow", *rights)
            stack.push_async_callback(admin.execute_command, "ACL", "DELUSER", "narrow")
            await admin.execute_command("ACL", "LOG", "RESET")
            await admin.config_resetstat()
        dsn = cluster.dsn.replace(f":{cluster.password}@", f"narrow:{password}@")
        app = await stack.enter_async_context(lab.app(REDIS_DSN=dsn, RATE_LIMIT_SIGN_IN_ACCOUNT="100/minute"))

        async def is_connected() -> bool:
            return bool((await app.client.get("/health")).json()["databases"]["redis"] == "connected")

        await until(is_connected, 10)
        await use(app.client)
        for admin in admins:
            refused: Any = await admin.execute_command("ACL", "LOG")
            assert [entry for entry in refused if entry[b"username"] == b"narrow"] == []
            used = {name.removeprefix("cmdstat_") for name in await admin.info("commandstats")}
            assert used >= {right[1:] for right in more}


ADMINISTRATORS = {"acl|log", "acl|setuser", "acl|deluser", "config|resetstat", "info"}
"""What the test itself calls."""
