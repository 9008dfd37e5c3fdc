"""A user with several sessions, the requests that end them, and the near caches that have them."""

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from tests.product.metrics import scrape, value
from tests.product.people import account, sign_in
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import query

Headers = dict[str, str]
Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]

# So that a busy machine is not taken for a store that is down, nor the end of a copy's time for an invalidation.
PATIENT = {
    "REDIS_TIMEOUT": "0.5",
    "EFFECTS_DEADLINE": "2",
    "POSTGRES_CONNECT_TIMEOUT": "5",
    "POSTGRES_REQUEST_DEADLINE": "8",
    "POSTGRES_STATEMENT_TIMEOUT": "8",
    "POSTGRES_LOCK_TIMEOUT": "8",
    "CACHE_SESSION_TTL": "60",
}


@dataclass(frozen=True)
class Ending:
    """A request that ends sessions of a user who has three, sent with the first of them."""

    path: str
    after: list[int]
    """What each of the three is answered from then on."""
    body: dict[str, str] | None = None


LOGOUT = Ending("/auth/logout", [401, 200, 200])
LOGOUT_ALL = Ending("/auth/logout-all", [401, 401, 401])
PASSWORD = Ending(
    "/users/me/password",
    [200, 401, 401],
    {"current_password": account()["password"], "new_password": "battery staple 7"},
)
ENDINGS = [LOGOUT, LOGOUT_ALL, PASSWORD]
each_ending = pytest.mark.parametrize("ending", ENDINGS, ids=["logout", "logout-all", "password"])


@dataclass(frozen=True)
class Member:
    username: str
    password: str
    sessions: list[Headers]

    async def end(self, ending: Ending, client: httpx.AsyncClient) -> None:
        answer = await client.post(ending.path, headers=self.sessions[0], json=ending.body)
        assert answer.status_code == 204, answer.text

    async def statuses(self, client: httpx.AsyncClient) -> list[int]:
        answers = await asyncio.gather(*(client.get("/users/me", headers=session) for session in self.sessions))
        return [answer.status_code for answer in answers]


async def join(client: httpx.AsyncClient, sessions: int = 3) -> Member:
    body = account()
    assert (await client.post("/users/register", json=body)).status_code == 201
    name, password = body["username"], body["password"]
    return Member(name, password, [await sign_in(client, name, password) for _ in range(sessions)])


async def are_waiting(stores: Stores, number: int) -> bool:
    """Whether so many statements of the apps wait for a lock."""
    condition = "wait_event_type = 'Lock' AND datname = current_database()"
    return bool((await query(stores, f"SELECT count(*) = {number} FROM pg_stat_activity WHERE {condition}"))[0][0])


# Far above what is waited for: what is seen was pushed.
CEILINGS = {"NEAR_SESSION_SECONDS": "60", "NEAR_PROFILE_SECONDS": "60"}


async def near_reads(client: httpx.AsyncClient) -> float:
    return value(await scrape(client), "cache_events_total", event="near")


async def warm(client: httpx.AsyncClient, *sessions: Headers) -> None:
    """Read each until its session and its profile are in the near cache."""

    async def is_near() -> bool:
        before = await near_reads(client)
        answers = await asyncio.gather(*(client.get("/users/me", headers=session) for session in sessions))
        assert {answer.status_code for answer in answers} == {200}
        return await near_reads(client) - before == 2 * len(sessions)

    await until(is_near, 30)
