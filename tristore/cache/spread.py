"""Calls of many keys in a cluster: one command for each key, because no command may have keys of several slots. Those
to one server go together."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import AskError, NoScriptError
from redis.typing import EncodableT

from tristore import spans
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore
from tristore.stores.redis_cluster import Cluster

ATTEMPTS = 3
"""While slots move to other servers."""

Answers = dict[int, Any]


async def spread(
    cluster: Cluster[RedisStore], keys: Sequence[str], call: Callable[[RedisStore, list[int]], Awaitable[Answers]]
) -> list[Any]:
    """The answers for the keys, in their order. `call` gets a server and the numbers of its keys. What it gives no
    answer for is asked again, where the key is then. Raises StoreUnavailable and the driver's errors."""
    answers: Answers = {}
    for _ in range(ATTEMPTS):
        groups: defaultdict[str, list[int]] = defaultdict(list)
        servers: dict[str, RedisStore] = {}
        for number in range(len(keys)):
            if number not in answers:
                server = await cluster.server_of(keys[number])
                servers[server.identity.node] = server
                groups[server.identity.node].append(number)
        for part in await asyncio.gather(*(call(servers[node], numbers) for node, numbers in groups.items())):
            answers |= part
        if len(answers) == len(keys):
            return [answers[number] for number in range(len(keys))]
        cluster.doubt()
    raise StoreUnavailable("redis", "busy", "MOVED")


async def pipelined(
    client: Redis, commands: Mapping[int, tuple[EncodableT, ...]], script: AsyncScript | None
) -> Answers:
    """The answers of one server, but for keys that it has no more. `script` is what the commands run."""
    answers: Answers = {}
    while left := [number for number in commands if number not in answers]:
        async with client.pipeline(transaction=False) as pipeline:
            for number in left:
                pipeline.execute_command(*commands[number])
            with spans.call("redis", "PIPELINE"):
                told = await pipeline.execute(raise_on_error=False)
            answers |= zip(left, told, strict=True)
        unknown = [number for number in left if isinstance(answers[number], NoScriptError)]
        if unknown and script:
            await client.script_load(script.script)
            for number in unknown:
                del answers[number]
            script = None  # once
    for answer in answers.values():
        if isinstance(answer, Exception) and not isinstance(answer, AskError):
            raise answer
    return {number: answer for number, answer in answers.items() if not isinstance(answer, AskError)}
