"""Two app processes on shared stores, of which the first gets no answer when a test wants it so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from tests.product.sessions import CEILINGS, PATIENT, Clients, Headers, Member
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.stores.stores import Stores
from tristore.testing.proxy import Proxy, proxy_to

# Nobody else delivers what a request has left, nor does any copy end by itself.
ALONE = {**PATIENT, **CEILINGS, "OUTBOX_POLL_SECONDS": "600"}


@dataclass(frozen=True)
class Town:
    """Two processes; the proxies are between the first and its stores."""

    clients: Clients
    postgresql: Proxy
    redis: Proxy
    stores: Stores

    @property
    def here(self) -> httpx.AsyncClient:
        return self.clients[0]

    @property
    def there(self) -> httpx.AsyncClient:
        return self.clients[1]

    async def lose_answer_to(self, method: str, path: str, headers: Headers, body: object = None) -> None:
        self.postgresql.lost, self.postgresql.lose_answer_to = 0, b"COMMIT;"
        answer = await self.here.request(method, path, headers=headers, json=body)
        self.postgresql.lose_answer_to = b""
        assert (answer.status_code, self.postgresql.lost) == (503, 1)

    async def hold(self, member: Member, after: list[int]) -> None:
        for client in (self.there, self.here):
            assert await member.statuses(client) == after


@asynccontextmanager
async def town_in(lab: Lab) -> AsyncIterator[Town]:
    """On databases of its own."""
    async with (
        fresh_databases(lab.servers) as settings,
        proxy_to(lab.servers["postgresql"].port) as postgresql,
        proxy_to(lab.servers["redis"].port) as redis,
        stores_beside(settings) as stores,
    ):
        own = replace(lab, settings=settings)
        port = str(lab.servers["postgresql"].port)
        through = {
            "POSTGRES_DSN": settings.dsn("postgres_dsn").replace(f":{port}/", f":{postgresql.port}/"),
            "REDIS_DSN": settings.dsn("redis_dsn").replace(f":{lab.servers['redis'].port}/", f":{redis.port}/"),
            "POSTGRES_REQUEST_DEADLINE": "3",
        }
        async with own.app(**ALONE | through) as here, own.app(**ALONE) as there:
            yield Town((here.client, there.client), postgresql, redis, stores)


@dataclass(frozen=True)
class Thing:
    """That can be undone."""

    method: str
    path: str
    status: int
    headers: Headers

    async def undo(self, client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(self.method, self.path, headers=self.headers)

    async def undo_at_once(self, town: Town) -> None:
        """By six requests to two processes. Fails unless all get the same answer."""
        answers = await asyncio.gather(*(self.undo(client) for client in town.clients * 3))
        assert {(answer.status_code, answer.text) for answer in answers} == {(self.status, answers[0].text)}
