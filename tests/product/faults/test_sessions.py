"""A sign-out holds in every process, whatever becomes of Redis, and nobody else is signed out."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from sqlalchemy import text

from repositories.cache_repo import session_key
from tests.product.people import register_admin, sign_in
from tests.product.sessions import (
    ENDINGS,
    LOGOUT,
    LOGOUT_ALL,
    PASSWORD,
    PATIENT,
    Clients,
    Ending,
    Headers,
    Member,
    are_waiting,
    each_ending,
    join,
)
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.passwords import CONTEXT, COST
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.proxy import Proxy, proxy_to

SOON = 4
"""Seconds. A relay takes about one; a lease that was not given back would take five."""


@dataclass(frozen=True)
class Copies:
    """What Redis holds of sessions: `v1:...` is a copy, `t2:` a tombstone."""

    redis: Redis

    async def of(self, member: Member) -> dict[bytes, bytes]:
        """Entries by key, also those that an earlier life of the server has left."""
        tokens = [session["Authorization"].split()[1] for session in member.sessions]
        names = [session_key(hashlib.sha256(token.encode()).digest()) for token in tokens]
        keys = [key for name in names async for key in self.redis.scan_iter(f"*{{{name}}}")]
        return {key: entry for key in keys if isinstance(entry := await self.redis.get(key), bytes)}

    async def kinds(self, member: Member) -> list[bytes]:
        return [entry.partition(b":")[0] for entry in (await self.of(member)).values()]

    async def made_by(self, client: httpx.AsyncClient, member: Member) -> None:
        """Wait until this process itself has put them there: then it reads from Redis."""
        for key in await self.of(member):
            await self.redis.delete(key)

        async def are_there() -> bool:
            assert await member.statuses(client) == [200] * len(member.sessions)
            return await self.kinds(member) == [b"v1"] * len(member.sessions)

        await until(are_there, 10)


@pytest.fixture
async def copies(lab: Lab) -> AsyncIterator[Copies]:
    once_more = Retry(NoBackoff(), 1, (ConnectionError,))  # a restart leaves the connection dead
    async with Redis.from_url(lab.settings.dsn("redis_dsn"), retry=once_more) as redis:
        yield Copies(redis)


@pytest.fixture(scope="module")
async def stores(lab: Lab) -> AsyncIterator[Stores]:
    """For looking into the stores."""
    async with stores_beside(lab.settings) as stores:
        yield stores


@pytest.fixture(scope="module")
async def clients(lab: Lab) -> AsyncIterator[Clients]:
    """Of two processes: here sessions are ended, there they were cached before, and Redis is sooner trusted again."""
    async with (
        lab.app(**PATIENT, REDIS_BREAKER_SECONDS="3") as here,
        lab.app(**PATIENT, REDIS_BREAKER_SECONDS="0.1") as there,
    ):
        yield here.client, there.client


async def test_losing_redis_signs_nobody_out_and_brings_nobody_back(lab: Lab, clients: Clients, copies: Copies) -> None:
    members = [await join(clients[0]) for _ in range(3)]
    for member in members:
        await copies.made_by(clients[1], member)
        await member.end(LOGOUT, clients[0])
    seen: set[tuple[int, ...]] = set()

    async def look(client: httpx.AsyncClient) -> None:
        for member in members:
            seen.add(tuple(await member.statuses(client)))

    async def keep_looking(client: httpx.AsyncClient) -> None:
        while True:
            await look(client)

    async def look_everywhere() -> None:
        await asyncio.gather(*map(look, clients))

    async def are_cached_again() -> bool:
        return [(await copies.kinds(member)).count(b"v1") for member in members] == [2] * 3

    async with asyncio.TaskGroup() as watchers:
        watching = [watchers.create_task(keep_looking(client)) for client in clients]
        await copies.redis.flushall()
        await look_everywhere()
        await until(are_cached_again, 5)
        async with lab.without("redis", "killed"):
            await look_everywhere()
        await look_everywhere()
        await until(are_cached_again, 5)
        for watcher in watching:
            watcher.cancel()
    assert seen == {tuple(LOGOUT.after)}


@each_ending
async def test_an_ended_session_is_refused_at_once_by_another_process(
    clients: Clients, copies: Copies, ending: Ending
) -> None:
    here, there = clients
    member = await join(here)
    await copies.made_by(there, member)
    await member.end(ending, here)
    assert await member.statuses(there) == ending.after
    assert await member.statuses(here) == ending.after


@each_ending
@pytest.mark.parametrize("is_asked", [True, False], ids=["asked while down", "not asked while down"])
async def test_an_ended_session_is_refused_at_once_when_redis_was_killed_and_is_back(
    lab: Lab, clients: Clients, copies: Copies, ending: Ending, is_asked: bool
) -> None:
    here, there = clients
    member = await join(here)
    await copies.made_by(there, member)
    async with lab.without("redis", "killed"):
        await member.end(ending, here)
        if is_asked:
            assert await member.statuses(there) == ending.after
    assert await member.statuses(there) == ending.after
    assert await member.statuses(here) == ending.after


@each_ending
async def test_an_ended_session_is_refused_at_once_when_redis_is_back_before_the_ending_process_trusts_it(
    lab: Lab, clients: Clients, copies: Copies, ending: Ending
) -> None:
    here, there = clients
    member = await join(there)
    async with lab.without("redis", "killed"):
        assert await member.statuses(here) == [200] * 3  # enough failures to open the breaker here
    await copies.made_by(there, member)
    await member.end(ending, here)
    assert await member.statuses(there) == ending.after


async def test_an_ended_session_is_refused_while_redis_hangs_and_soon_after_it_goes_on(
    lab: Lab, clients: Clients, stores: Stores, copies: Copies
) -> None:
    here, there = clients
    members = [await join(here) for _ in ENDINGS]
    expected = [ending.after for ending in ENDINGS]
    for member in members:
        await copies.made_by(there, member)

    async def hold(client: httpx.AsyncClient) -> bool:
        return await asyncio.gather(*(member.statuses(client) for member in members)) == expected

    async with lab.without("redis", "stopped"):
        await asyncio.gather(*(member.end(ending, here) for member, ending in zip(members, ENDINGS, strict=True)))
        assert await hold(there)
        assert await hold(here)
    await until(partial(hold, there), SOON)
    assert await hold(here)
    await until(lambda: nothing_is_owed(stores), 5)
    assert await hold(there)


async def nothing_is_owed(stores: Stores) -> bool:
    """But second passes."""
    owed = await query(stores, "SELECT count(*) FROM outbox WHERE store = 'redis' AND delay = 0")
    return bool(owed[0][0] == 0)


@pytest.fixture
def dump(lab: Lab, clients: Clients) -> Iterator[Path]:
    """Where Redis keeps its data on disk, and finds them when it starts."""
    dump = lab.servers["redis"].data / "dump.rdb"
    yield dump
    dump.unlink(missing_ok=True)


@each_ending
@pytest.mark.usefixtures("dump")
async def test_an_ended_session_is_refused_at_once_when_redis_brings_back_old_data(
    lab: Lab, clients: Clients, copies: Copies, ending: Ending
) -> None:
    here, there = clients
    before, meanwhile = [await join(here) for _ in range(2)]
    for member in (before, meanwhile):
        await copies.made_by(there, member)
    old = await copies.of(before) | await copies.of(meanwhile)
    await copies.redis.save()
    await before.end(ending, here)
    assert await copies.redis.mget(old) != list(old.values())
    async with lab.without("redis", "killed"):
        await meanwhile.end(ending, here)
    assert await copies.redis.mget(old) == list(old.values())
    for member in (before, meanwhile):
        assert await member.statuses(there) == ending.after
        assert await member.statuses(here) == ending.after


async def test_no_ended_session_is_accepted_while_redis_is_killed_again_and_again(lab: Lab, clients: Clients) -> None:
    here, there = clients
    answers: list[tuple[int, int, int]] = []
    over = asyncio.Event()

    async def status(session: Headers) -> int:
        return (await there.get("/users/me", headers=session)).status_code

    async def come_and_go(member: Member) -> None:
        while not over.is_set():
            session = await sign_in(here, member.username, member.password)
            before = await status(session)
            ended = await here.post(LOGOUT.path, headers=session)
            answers.append((before, ended.status_code, await status(session)))

    members = [await join(here, sessions=0) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(come_and_go(member))
        for kills in range(6):
            async with lab.without("redis", "killed"):
                await asyncio.sleep(0.05 * (kills % 3))
            await asyncio.sleep(0.15 * (kills % 3))  # long enough, at times, to be trusted again
        over.set()
    assert set(answers) == {(200, 204, 401)}


def through(proxy: Proxy, lab: Lab) -> dict[str, str]:
    return {
        **PATIENT,
        "REDIS_DSN": lab.servers["redis"].dsn.replace(f":{lab.servers['redis'].port}/", f":{proxy.port}/"),
    }


async def test_what_a_process_without_redis_ends_is_told_by_another_before_it_answers(
    lab: Lab, clients: Clients, stores: Stores, copies: Copies
) -> None:
    there = clients[1]
    async with proxy_to(lab.servers["redis"].port) as proxy, lab.app(**through(proxy, lab)) as cut_off:
        boss, aide = [await register_admin(there, stores) for _ in range(2)]
        mine, erased, theirs = [await join(there) for _ in range(3)]
        for member in (mine, erased, theirs):
            await copies.made_by(there, member)
            assert await member.statuses(cut_off.client) == [200] * 3
        role = f"/users/{aide['X-User-Id']}/role"
        assert (await there.put(role, headers=aide, json={"role": "admin"})).status_code == 200
        proxy.black_hole = True
        await mine.end(LOGOUT_ALL, cut_off.client)
        assert await mine.statuses(there) == LOGOUT_ALL.after
        assert (await cut_off.client.delete("/users/me", headers=erased.sessions[0])).status_code == 202
        assert await erased.statuses(there) == LOGOUT_ALL.after
        assert (await cut_off.client.put(role, headers=boss, json={"role": "learner"})).status_code == 200
        assert (await there.put(role, headers=aide, json={"role": "admin"})).status_code == 403
        await theirs.end(LOGOUT_ALL, there)
        for member in (mine, erased, theirs):
            assert await member.statuses(cut_off.client) == LOGOUT_ALL.after
        await until(lambda: nothing_is_owed(stores), 5)


async def test_where_nobody_can_deliver_it_the_copys_time_bounds_how_long_an_ended_session_is_accepted(
    lab: Lab, copies: Copies
) -> None:
    ttl, near = 3, 0.5
    async with fresh_databases(lab.servers) as settings, proxy_to(lab.servers["redis"].port) as proxy:
        own = replace(lab, settings=settings)  # no relay of another test's process has this outbox
        ttls = {"CACHE_SESSION_TTL": str(ttl), "NEAR_SESSION_SECONDS": str(near)}
        async with (
            own.app(**through(proxy, lab) | ttls | {"REDIS_TIMEOUT": "0.1"}) as cut_off,
            own.app(**PATIENT | ttls, OUTBOX_POLL_SECONDS="600") as other,
            open_stores(settings) as stores,
        ):
            member = await join(other.client)
            await copies.made_by(other.client, member)
            proxy.black_hole = True
            ended_at = served_at = time.monotonic()
            await member.end(LOGOUT_ALL, cut_off.client)

            async def is_refused() -> bool:
                nonlocal served_at
                asked_at = time.monotonic()
                if 200 in (statuses := await member.statuses(other.client)):
                    served_at = asked_at
                return statuses == LOGOUT_ALL.after

            await until(is_refused, 4 * ttl)
            assert 0 <= served_at - ended_at < 1.1 * ttl + near  # read from Redis at the last moment
            assert await copies.kinds(member) == [b"n0"] * 3
            assert not await nothing_is_owed(stores)
            proxy.black_hole = False
            await until(lambda: nothing_is_owed(stores), 5)
            assert await member.statuses(other.client) == LOGOUT_ALL.after


@pytest.mark.parametrize("order", [("sign-in", "change"), ("change", "sign-in")], ids=lambda order: f"{order[0]} first")
async def test_no_session_begun_with_the_old_password_outlives_its_change(
    clients: Clients, stores: Stores, order: tuple[str, str]
) -> None:
    here, there = clients
    member = await join(here, sessions=1)
    form = {"username": member.username, "password": member.password}
    requests = {
        "sign-in": there.post("/auth/token", data=form),
        "change": here.post(PASSWORD.path, headers=member.sessions[0], json=PASSWORD.body),
    }
    async with stores.postgres.engine.begin() as connection:
        # Lets both verify the old password and begin to write, and neither finish.
        await connection.execute(text("LOCK TABLE sessions IN SHARE MODE"))
        tasks = {}
        for number, name in enumerate(order, 1):
            tasks[name] = asyncio.create_task(requests[name])
            await until(partial(are_waiting, stores, number), 5)
    signed_in, changed = await tasks["sign-in"], await tasks["change"]
    assert changed.status_code == 204
    assert signed_in.status_code in {200, 401}  # what was seen waiting may have been something else
    if signed_in.is_success:
        token = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        answers = [await client.get("/users/me", headers=token) for client in clients]
        assert [answer.status_code for answer in answers] == [401, 401]
    assert await member.statuses(there) == [200]


async def test_two_sign_ins_that_find_an_outdated_hash_both_succeed(clients: Clients, stores: Stores) -> None:
    member = await join(clients[0], sessions=0)
    outdated = CONTEXT.copy(**COST | {"argon2__memory_cost": 8192}).hash(member.password)
    async with stores.postgres.engine.begin() as connection:
        sql = "UPDATE users SET password_hash = :hash WHERE username = :name"
        await connection.execute(text(sql), {"hash": outdated, "name": member.username})
    async with stores.postgres.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE sessions IN SHARE MODE"))
        tasks = [asyncio.create_task(sign_in(client, member.username, member.password)) for client in clients]
        await until(partial(are_waiting, stores, 2), 5)
    sessions = await asyncio.gather(*tasks)
    assert await replace(member, sessions=sessions).statuses(clients[1]) == [200] * 2
    [(kept,)] = await query(stores, "SELECT password_hash FROM users WHERE username = :name", name=member.username)
    assert kept.startswith("$argon2id$v=19$m=19456,")
